"""ESC-50 and ESC-10 in the folder of their repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kdp.data.esc50 import esc50_folder
from kdp.errors import KdpError
from kdp.tasks.scenes.section import Esc50Samples
from tests.data.audio_helpers import sine, write_esc50

CLASSES = ("dog", "cat", "rain", "train")


@pytest.fixture(scope="module")
def esc50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: no test writes here."""
    return write_esc50(tmp_path_factory.mktemp("esc50") / "ESC-50")


@pytest.mark.parametrize("test_folds", [[5], [1], [2, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("val", [0.1, 0.4])
def test_folds_are_for_the_test_and_sources_are_held_out_of_the_others(
    esc50: Path, test_folds: list[int], val: float
) -> None:
    train, held_out, test = (
        esc50_folder(esc50, CLASSES, part, test_folds, val=val) for part in ("train", "val", "test")
    )
    assert {int(clip.name[0]) for clip in test} == set(test_folds)
    assert len(test) == 24 * len(test_folds)
    assert len(train) + len(held_out) + len(test) == 120
    sources = [{clip.place for clip in clips} for clips in (train, held_out, test)]
    assert len(set.union(*sources)) == sum(map(len, sources))
    for part in (train, held_out):
        assert {clip.label for clip in part} == {0, 1, 2, 3}
    # Both takes of a source are in one part: a class may have one and a half too many.
    assert abs(len(held_out) - val * (len(train) + len(held_out))) <= 6


def test_esc10_is_what_the_table_marks(esc50: Path) -> None:
    clips = esc50_folder(esc50, ("rain", "dog"), "test", [3], esc10=True)
    assert {clip.name.split("-")[3] for clip in clips} == {"0.wav", "10.wav"}
    assert {clip.label for clip in clips} == {0, 1}
    assert len(clips) == 12


@pytest.mark.parametrize("rate", [8000, 32_000, 44_100])
def test_sounds_are_resampled(esc50: Path, rate: int) -> None:
    clip = esc50_folder(esc50, CLASSES, "test", [1], rate=rate)[0]
    wave = clip.read()
    assert (wave.shape, clip.rate) == ((round(0.2 * rate),), rate)
    inner = slice(len(wave) // 10, -len(wave) // 10)
    np.testing.assert_allclose(wave[inner], sine(240, 0.2, rate)[inner], atol=2e-3)


def replaced(before: str, after: str) -> Callable[[Path], Any]:
    def spoil(folder: Path) -> None:
        table = folder / "meta" / "esc50.csv"
        table.write_text(table.read_text().replace(before, after))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda f: (f / "meta/esc50.csv").unlink(), "has no meta/esc50.csv: it is not the folder"),
        (replaced(",", "\t"), "esc50.csv has no column 'filename'"),
        (replaced("src_file", "source"), "esc50.csv has no column 'src_file'"),
        (replaced(".wav,5,", ".wav,9,"), "is in the fold '9', not one of 1 to 5"),
        (replaced(",cat,", ",lion,"), "the label 'lion', which is not a class"),
        (replaced(",dog,", ",,"), r"esc50.csv, line 2: category is empty"),
        (replaced(".wav,", ".mp3,"), r"no file of .*esc50.csv exists \(24 are listed\)"),
    ],
)
def test_a_bad_folder_is_a_one_line_error(
    tmp_path: Path, spoil: Callable[[Path], Any], line: str
) -> None:
    folder = write_esc50(tmp_path / "ESC-50", seconds=0.01)
    spoil(folder)
    with pytest.raises(KdpError, match=line) as error:
        esc50_folder(folder, CLASSES, "test", [5])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("folds", [[], [0], [6], [1, 1], [1, 2, 3, 4, 5]])
def test_folds_are_one_to_five_and_some_are_left_to_train_on(folds: list[int]) -> None:
    with pytest.raises(ValidationError, match="test_folds"):
        Esc50Samples.model_validate({"folder": "x", "part": "train", "test_folds": folds})
