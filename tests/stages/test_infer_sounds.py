"""`kdp infer` on sounds, through the command line."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from kdp.artifacts import Artifact, save
from kdp.config import Config
from kdp.data.images import png_bytes
from kdp.data.mel import LogMel
from kdp.data.mel_settings import MelSettings
from kdp.models.loading import load_network
from kdp.models.mobile import SCENES, Mobile
from kdp.tasks.scenes.task import AcousticScenes
from tests.runs import complaints
from tests.stages.sound_helpers import (
    NAMES,
    infer,
    probabilities,
    write_damaged,
    write_network,
    write_recordings,
    write_sound,
    write_table,
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("networks") / "scenes.pth")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: no test writes here."""
    return write_recordings(tmp_path_factory.mktemp("sounds") / "recordings")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with the sounds a.wav and z.wav."""
    for name in ("a.wav", "z.wav"):
        write_sound(tmp_path / "sounds" / name)
    return tmp_path / "sounds"


def refused(*arguments: str | Path) -> str:
    """The line with which a command ends that prints and writes nothing."""
    done = infer(*arguments)
    assert (done.code, done.stdout) == (2, "")
    assert not list(Path.cwd().iterdir())
    (line,) = complaints(done.stderr)
    return line


def by_hand(network: Path, sound: Path, settings: MelSettings | None = None) -> torch.Tensor:
    """Mean probabilities over whole seconds; a shorter sound is padded with zeros."""
    own = settings or MelSettings()
    samples, rate = soundfile.read(sound, always_2d=True, dtype="float32")
    wave = soxr.resample(samples.mean(1), rate, own.sample_rate, quality="HQ")
    wave = np.pad(wave, (0, max(0, own.sample_rate - len(wave))))
    whole = len(wave) // own.sample_rate * own.sample_rate
    seconds = torch.from_numpy(wave[:whole]).view(-1, own.sample_rate)
    with torch.no_grad():
        return load_network(network)[0](LogMel(own)(seconds)).softmax(1).mean(0)


def test_the_table_has_every_sound_of_a_folder(network: Path, recordings: Path) -> None:
    done = infer(network, recordings)
    assert done.code == 0, done.stderr
    head = done.stdout.strip().splitlines()[0]
    assert head.split() == ["file", "class", "probability"]
    text = "".join(done.stdout.split())
    assert all(name in text for name in NAMES)
    assert "other.wav" not in text
    assert f"label sounds: {len(NAMES)} of {len(NAMES)}" in done.stderr
    assert not list(Path.cwd().iterdir())


def test_probabilities_are_averaged_over_the_seconds(network: Path, recordings: Path) -> None:
    rows = json.loads(infer(network, recordings, "--format", "json").stdout)
    assert [row["file"] for row in rows] == [str(recordings / name) for name in NAMES]
    for row in rows:
        expected = by_hand(network, Path(row["file"]))
        assert row["class"] == SCENES[int(expected.argmax())]
        # Evaluation keeps decoded sounds in 16 bits.
        assert row["probability"] == pytest.approx(float(expected.max()), abs=1e-2)


@pytest.mark.parametrize(
    "settings",
    [
        MelSettings(sample_rate=16_000),
        MelSettings(n_mels=64, hop_length=400, f_min=100.0),
        MelSettings(sample_rate=8000, n_mels=32, n_fft=512, window_length=400, hop_length=80),
    ],
)
def test_a_network_hears_sounds_with_its_own_settings(
    tmp_path: Path, recordings: Path, settings: MelSettings
) -> None:
    network = write_network(tmp_path / "own.pth", log_mel=settings.plain)
    sound = recordings / "cd.wav"
    (row,) = json.loads(infer(network, sound, "--format", "json").stdout)
    expected = by_hand(network, sound, settings)
    assert row["class"] == SCENES[int(expected.argmax())]
    assert row["probability"] == pytest.approx(float(expected.max()), abs=1e-2)


def test_a_sound_has_the_segments_that_evaluation_gives_it(network: Path, tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "sounds")
    done = infer(network, folder, "--format", "dcase")
    write_table(folder, NAMES)
    section = {"kind": "scenes", "folder": str(folder)}
    plain = {"output": {"name": "x"}, "evaluation": {"own": section}, "device": "cpu"}
    model, arch, _ = load_network(network)
    task = AcousticScenes(arch, Config.model_validate(plain))
    by_clip: dict[str, list[list[float]]] = {}
    for row in task.predict_set(model, task.evaluation_sets["own"]):
        values = [float(row[f"p_{scene}"]) for scene in sorted(SCENES)]
        by_clip.setdefault(str(row["clip"]), []).append(values)
    assert [len(by_clip[name]) for name in NAMES] == [2, 5, 3, 1, 1, 1]
    table = probabilities(done.stdout)
    assert list(table) == NAMES
    for name, values in table.items():
        np.testing.assert_allclose(values, np.mean(by_clip[name], axis=0), atol=1e-5)


def test_formats_hold_the_same(network: Path, sounds: Path) -> None:
    printed = {kind: infer(network, sounds, "--format", kind).stdout for kind in ("csv", "json")}
    rows = json.loads(printed["json"])
    assert [row["file"] for row in rows] == [str(sounds / "a.wav"), str(sounds / "z.wav")]
    assert all(list(row) == ["file", "class", "probability"] for row in rows)
    table = list(csv.DictReader(printed["csv"].splitlines()))
    assert [{**row, "probability": float(row["probability"])} for row in table] == rows
    for kind in ("csv", "json"):
        done = infer(network, sounds, "-o", f"new/labels.{kind}")
        assert done.stdout == f"new/labels.{kind}\n"
        assert Path(f"new/labels.{kind}").read_text() == printed[kind]
        assert f"{sounds / 'a.wav'}: class: {rows[0]['class']}; probability: " in done.stderr


def test_markdown_is_a_table(network: Path, sounds: Path) -> None:
    assert infer(network, sounds / "a.wav", "-o", "labels.md").code == 0
    head, rule, row = Path("labels.md").read_text().splitlines()
    assert (head, rule) == ("| file | class | probability |", "| --- | --- | --- |")
    assert row.startswith(f"| {sounds / 'a.wav'} | ")


def test_headless_prints_a_line_of_json_for_each_sound(network: Path, sounds: Path) -> None:
    done = infer(network, sounds, "--headless", "-o", "labels.json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(line) for line in lines] == [["file", "ms", "class", "probability"]] * 2
    rows = json.loads(Path("labels.json").read_text())
    assert [{k: v for k, v in line.items() if k != "ms"} for line in lines] == rows
    assert done.stderr.splitlines()[-1] == "labels.json"


def test_the_submission_has_classes_in_alphabetical_order(sounds: Path, tmp_path: Path) -> None:
    """As the challenge's validator reads it."""
    other = write_network(tmp_path / "other.pth", classes=list(SCENES[::-1]))
    name = "Doe_ABC_task1_1.output.split_5.csv"
    assert infer(other, sounds, "--format", "dcase", "-o", name).stdout == f"{name}\n"
    head, *rows = (line.split("\t") for line in Path(name).read_text().splitlines())
    assert head == ["filename", "scene_label", *sorted(SCENES)]
    assert [row[0] for row in rows] == ["a.wav", "z.wav"]
    for row, sound in zip(rows, ("a.wav", "z.wav"), strict=True):
        values = dict(zip(head[2:], map(float, row[2:]), strict=True))
        expected = dict(zip(SCENES[::-1], by_hand(other, sounds / sound).tolist(), strict=True))
        assert values == pytest.approx(expected, abs=1e-2)
        assert row[1] == max(values, key=values.__getitem__)
        assert sum(values.values()) == pytest.approx(1, abs=1e-4)


def test_a_submission_tells_files_apart_by_their_names(network: Path, sounds: Path) -> None:
    write_sound(sounds / "b" / "z.wav")
    line = refused(network, sounds, sounds / "b", "--format", "dcase")
    assert f"{sounds}/z.wav and {sounds}/b/z.wav have the same name" in line
    done = infer(network, sounds, sounds / "b", "--format", "csv")
    assert len(done.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("b.wav", "not finite", "is corrupt: it has samples that are not finite"),
        ("b.wav", "of integers", "has samples up to 20000, where full scale is 1"),
        ("b.wav", "silent", "is silent: all its samples are 0"),
        ("b.flac", "cancelled", "is silent: all its samples are 0"),
        ("b.wav", "without samples", "is empty"),
        ("b.wav", "too short", "is too short: 1 samples at 192000 Hz"),
        ("b.ogg", "no sound", "it is corrupt or of an unknown format"),
        ("b.wav", "empty", "it is corrupt or of an unknown format"),
        ("b.wav", "cut", "is cut off: its header announces more than there is"),
        ("b.flac", "cut", "is cut off: its header announces more than there is"),
        ("b.aiff", "cut", "is cut off: its header announces more than there is"),
        ("b.ogg", "cut", "is cut off: its header announces more than there is"),
    ],
)
def test_a_sound_with_nothing_to_label_does_not_stop_the_others(
    network: Path, sounds: Path, name: str, kind: str, reason: str
) -> None:
    write_damaged(sounds / name, kind)
    done = infer(network, sounds, "-o", "labels.csv")
    assert (done.code, done.stdout) == (2, "labels.csv\n")
    (line,) = complaints(done.stderr)
    assert f"{sounds / name}" in line
    assert reason in line
    rows = list(csv.DictReader(Path("labels.csv").read_text().splitlines()))
    assert [row["file"] for row in rows] == [str(sounds / "a.wav"), str(sounds / "z.wav")]


def test_sounds_with_nothing_to_label_alone_write_no_table(network: Path, sounds: Path) -> None:
    for name in ("a.wav", "z.wav"):
        write_damaged(sounds / name, "silent")
    line = refused(network, sounds, "-o", "labels.csv")
    assert line.count("is silent") == 2


@pytest.mark.parametrize("given", [".", "*.wav", "link/*.wav"])
def test_nothing_is_written_beside_the_input(
    network: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(sounds)
    (sounds / "link").symlink_to(sounds)
    before = sorted(sounds.iterdir())
    for arguments in (["-o", "labels.csv"], ["--format", "dcase", "-o", "a.wav", "--overwrite"]):
        done = infer(network, given, *arguments)
        assert (done.code, done.stdout) == (2, "")
        assert f"{arguments[-1] if len(arguments) == 2 else 'a.wav'} would lie among" in done.stderr
    assert infer(network, given).code == 0
    assert sorted(sounds.iterdir()) == before


def test_another_programs_file_is_kept_without_overwrite(network: Path, sounds: Path) -> None:
    table = Path("labels.csv")
    table.write_text("mine")
    done = infer(network, sounds, "-o", table)
    assert done.code == 2
    assert "labels.csv would be replaced, and kdp did not write it" in done.line
    assert table.read_text() == "mine"
    for arguments in (["--overwrite"], []):
        assert infer(network, sounds, "-o", table, *arguments).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--x8"], "--x8 does not apply: {network} holds 'rep_mobile', a classifier of sounds"),
        (["--whole"], "--whole does not apply"),
        (["--camera", "0"], "--camera does not apply"),
        (["-o", "labels.mp4"], "--output VIDEO does not apply"),
        (["-o", "folder"], "cannot write the table folder: its name must end with .csv, .json"),
        (["--format", "xml"], "there is no format 'xml' of tables; available: table, csv, json"),
        (["--format", "dcas"], "did you mean 'dcase'?"),
        (["--format", "csv", "-o", "x.json"], "--format csv does not fit x.json, a name for json"),
        (["--format", "table", "-o", "x.md"], "--format table does not fit x.md, a name for md"),
        (["--format", "csv", "--headless"], "leave out --format, or add --output"),
        (["gone.wav"], "there is no sound and no folder gone.wav"),
        (["gone/*.wav"], "no sound matches gone/*.wav (looked for .aif, "),
    ],
)
def test_what_does_not_fit_is_a_one_line_error(
    network: Path, sounds: Path, arguments: list[str], message: str
) -> None:
    assert message.format(network=network) in refused(network, sounds, *arguments)


def test_images_are_no_sounds_and_sounds_no_images(network: Path, tmp_path: Path) -> None:
    image = tmp_path / "images" / "a.png"
    image.parent.mkdir()
    image.write_bytes(png_bytes(np.zeros((8, 8, 3), np.uint8)))
    assert f"no sounds in {image.parent} (looked for .aif," in refused(network, image.parent)
    assert f"cannot read the sound {image}" in refused(network, image)
    assert "no sound is given; name files, folders or quoted" in refused(network)
    faces = Path(__file__).parents[2] / "weights" / "face_mask_pruned_70.pth"
    line = refused(faces, image, "--format", "csv")
    assert "--format does not apply" in line


def test_a_network_that_overflows_gives_no_label(network: Path, sounds: Path) -> None:
    model, arch, artifact = load_network(network)
    params = model.state_dict()
    name = next(name for name in params if params[name].ndim == 4)
    params[name] = torch.full_like(params[name], 3e38)
    broken = sounds.parent / "broken.pth"
    save(broken, Artifact(params, arch, artifact.record))
    line = refused(broken, sounds, "-o", "labels.csv")
    assert f"{broken}: the network's output is not finite" in line


def test_ctrl_c_ends_with_one_line_and_no_table(
    network: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, passes = Mobile.forward, []

    def interrupted(self: Mobile, x: torch.Tensor) -> torch.Tensor:
        passes.append(x)
        if len(passes) == 2:
            signal.raise_signal(signal.SIGINT)
        return forward(self, x)

    monkeypatch.setattr(Mobile, "forward", interrupted)
    done = infer(network, sounds, "-o", "labels.csv")
    assert (done.code, done.stdout) == (130, "")
    assert complaints(done.stderr) == ["kdp: stopped after 1 of 2 sounds; no table was written"]
    assert not list(Path.cwd().iterdir())


def test_a_long_sound_moves_the_bar_with_every_batch(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 s are three batches of up to 64 segments."""
    from kdp.stages.infer import predict_table as stage

    steps: list[float] = []

    class Bar:
        def __enter__(self) -> Callable[..., None]:
            return lambda count=1, note=None: steps.append(float(count))

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(stage, "progress", lambda *_: Bar())
    assert infer(network, write_sound(tmp_path / "long.flac", 130, 8_000)).code == 0
    assert [step for step in steps if step] == pytest.approx([1 / 3] * 3)
