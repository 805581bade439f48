"""Folders of acoustic scenes in TAU's layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kdp.data.scenes import scene_folder, tau_folder
from kdp.data.segments import SegmentDataset
from kdp.errors import KdpError
from kdp.models.mobile import SCENES
from kdp.tasks.scenes.section import SceneSamples
from kdp.tasks.scenes.task import load_clips
from tests.data.audio_helpers import FILES, HEADER, sine, table


def test_tau_is_read_in_its_original_layout(tau: Path) -> None:
    clips = scene_folder(tau_folder(None), "split5.csv", SCENES)
    assert [clip.name for clip in clips] == [FILES[2], FILES[1], FILES[0]]
    assert [clip.label for clip in clips] == [1, 0, 0]
    assert [clip.device for clip in clips] == ["b", "s1", "a"]
    assert [clip.place for clip in clips] == ["lyon-1000", "barcelona-0", "barcelona-0"]
    (test,) = scene_folder(tau_folder(None), "test.csv", SCENES)
    wave = test.read()
    assert (wave.shape, wave.dtype) == ((32000,), np.float32)
    np.testing.assert_allclose(wave[500:-500], sine(1760)[500:-500], atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100])
def test_recordings_are_resampled_to_any_rate(tau: Path, rate: int) -> None:
    clips = scene_folder(tau, "test.csv", SCENES, rate)
    wave = clips[0].read()
    np.testing.assert_allclose(wave[500:-500], sine(1760, rate=rate)[500:-500], atol=1e-3)
    sample = SegmentDataset(clips, seed=0, length=1, roll=0.1)[0]
    assert sample["wave"].shape == (rate,)


def test_without_source_label_the_device_comes_from_the_file_name(tau: Path) -> None:
    rows = [(name, "bus", "lyon-1") for name in FILES]
    table(tau / "meta.csv", HEADER[:3], rows)
    clips = scene_folder(tau, "split5.csv", SCENES)
    assert [clip.device for clip in clips] == ["b", "s1", "a"]


def test_the_folder_in_the_configuration_comes_first(tau: Path) -> None:
    assert tau_folder(None) == tau
    assert tau_folder(Path("elsewhere")) == Path("elsewhere")


def test_without_a_folder_the_error_names_both_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAU24_PATH", raising=False)
    with pytest.raises(KdpError, match=r"set `folder` in the configuration.*TAU24_PATH"):
        tau_folder(None)


def break_label(folder: Path) -> None:
    table(folder / "meta.csv", HEADER, [(name, "buss", "lyon-1", "a") for name in FILES])


def break_cell(folder: Path) -> None:
    table(folder / "meta.csv", HEADER, [(FILES[0], "bus", "lyon-1", "a"), (FILES[1],)])


@pytest.mark.parametrize(
    ("spoil", "split", "line"),
    [
        (lambda f: None, "split7.csv", "has no split split7.csv; available: split5.csv, test.csv"),
        (lambda f: (f / "meta.csv").unlink(), "test.csv", "has no meta.csv"),
        (lambda f: f.rename(f.with_name("gone")), "test.csv", "tau does not exist"),
        (break_label, "test.csv", r"meta.csv: audio/tram-.*'buss'.*did you mean 'bus'"),
        (break_cell, "test.csv", r"meta.csv, line 3: scene_label is empty"),
        (
            lambda f: table(f / "meta.csv", HEADER[:2], []),
            "test.csv",
            "meta.csv has no column 'identifier'; it has: filename, scene_label",
        ),
        (
            lambda f: table(f / "test.csv", ("filename",), [("audio/new.wav",)]),
            "test.csv",
            "test.csv has audio/new.wav, which .*meta.csv does not have",
        ),
        (lambda f: (f / FILES[3]).unlink(), "test.csv", r"no file of .*test.csv exists \(1 "),
        (lambda f: (f / "meta.csv").write_bytes(b"\xff\xfe"), "test.csv", "cannot read .*meta.csv"),
    ],
)
def test_a_bad_folder_is_a_one_line_error(
    tau: Path, spoil: Callable[[Path], Any], split: str, line: str
) -> None:
    spoil(tau)
    with pytest.raises(KdpError, match=line) as error:
        scene_folder(tau, split, SCENES)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_and_left_out(tau: Path, messages: list[str]) -> None:
    (tau / FILES[0]).unlink()
    clips = scene_folder(tau, "split5.csv", SCENES)
    assert [clip.name for clip in clips] == [FILES[2], FILES[1]]
    assert messages == [f"{tau / 'split5.csv'}: 1 missing recordings left out: {FILES[0]}"]


def relabel(folder: Path) -> None:
    labels = [("bus" if name == FILES[3] else "tram") for name in FILES]
    rows = [(name, label, "x", "a") for name, label in zip(FILES, labels, strict=True)]
    table(folder / "meta.csv", HEADER, rows)


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (relabel, "test.csv and meta.csv: .*tram-.*two labels, 'tram' and 'bus'"),
        (
            lambda f: table(
                f / "meta.csv", HEADER, [(FILES[3], s, "x", "a") for s in ("tram", "metro")]
            ),
            "two labels, 'tram' and 'metro'",
        ),
        (
            lambda f: table(
                f / "test.csv", HEADER[:2], [(FILES[3], "tram"), (FILES[3], "airport")]
            ),
            "two labels, 'airport' and 'tram'",
        ),
    ],
    ids=["split and meta.csv", "meta.csv", "split"],
)
def test_a_sound_with_two_labels_is_refused(
    tau: Path, spoil: Callable[[Path], Any], names: str
) -> None:
    spoil(tau)
    with pytest.raises(KdpError, match=names):
        scene_folder(tau, "test.csv", SCENES)


def test_equal_sounds_with_different_labels_are_left_out(tau: Path, messages: list[str]) -> None:
    (tau / FILES[2]).write_bytes((tau / FILES[0]).read_bytes())  # a bus and an airport
    clips = scene_folder(tau, "split5.csv", SCENES)
    assert [clip.name for clip in clips] == [FILES[1]]
    (line,) = messages
    assert line.endswith(f"one content with several labels, 2 left out: {FILES[2]}, {FILES[0]}")


@pytest.mark.parametrize("subset", [5, 10, 25, 50, 100, None])
def test_a_subset_names_the_list_of_training_clips(tau: Path, subset: int | None) -> None:
    (tau / "split5.csv").rename(tau / f"split{subset or 100}.csv")
    section = SceneSamples.model_validate({"folder": tau, "subset": subset})
    assert len(load_clips(section, SCENES, validation=False)) > 0
    # What is evaluated on does not depend on how much is trained on.
    with_all = SceneSamples.model_validate({"folder": tau})
    expected = load_clips(with_all, SCENES, validation=True)
    assert [c.name for c in load_clips(section, SCENES, True)] == [c.name for c in expected]


@pytest.mark.parametrize("wrong", [{"subset": 7}, {"subset": 5, "split": "split5.csv"}])
def test_a_subset_is_one_of_five(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="subset"):
        SceneSamples.model_validate(wrong)
