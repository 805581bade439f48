"""The log-mel settings of a network: given once, kept with it, and the same for every reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from kdp.artifacts import Artifact, load, save
from kdp.cli import app
from kdp.config import Config
from kdp.config.compose import load_config
from kdp.data.mel_settings import MelSettings, mel_settings
from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.stages.compare.compare import evaluate
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.cache_targets import cache_targets
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.tasks.scenes.task import AcousticScenes
from kdp.types import Arch
from tests.stages.sound_helpers import write_network
from tests.tasks.test_scenes import SMALL, STEPS
from tests.tasks.test_scenes import settings as scenes

LOW_RATE = {
    "sample_rate": 8000,
    "n_mels": 49,
    "window_length": 400,
    "hop_length": 200,
    "n_fft": 512,
    "f_min": 50.0,
    "f_max": 3800.0,
}
LOW_RATE_SIZE = (49, 41)


def settings(folder: Path, audio: dict[str, Any], **changes: Any) -> Config:
    """A small network on generated scenes, with these keys of `data.audio`."""
    return scenes(folder, **{"data": {"audio": audio}, **changes})


def task_of(folder: Path, **audio: Any) -> AcousticScenes:
    """The task of a network with these settings, of which the configuration says nothing."""
    args = {**SMALL, "log_mel": MelSettings(**audio).plain}
    return AcousticScenes(Arch("rep_mobile", args), settings(folder, {}))


@pytest.mark.parametrize(
    ("audio", "size"),
    [
        ({"n_mels": 64}, (64, 65)),
        ({"sample_rate": 16_000}, (256, 33)),
        ({"hop_length": 320, "f_min": 20.0, "f_max": 14_000.0}, (256, 101)),
        (LOW_RATE, LOW_RATE_SIZE),
    ],
    ids=["bins", "rate", "hop and band", "all"],
)
def test_the_input_is_computed_as_the_settings_say(
    tmp_path: Path, audio: dict[str, Any], size: tuple[int, int]
) -> None:
    written = train(settings(tmp_path, audio))["best"]
    arch = load_network(written)[1]
    assert mel_settings(arch.args["log_mel"]) == MelSettings(**audio)
    without = AcousticScenes(arch, settings(tmp_path, {}))
    sample = without.training_data(1)[0]
    assert sample["wave"].shape == (audio.get("sample_rate", 32_000),)
    batch = {key: value[None] for key, value in sample.items()}
    assert without.inputs(without.prepare(batch, augment=False)).shape == (1, 1, *size)
    assert without.latency_size == without.input_size == size


def test_default_settings_leave_networks_as_they_were(tmp_path: Path) -> None:
    spelled_out = {**MelSettings().plain, "f_max": 16_000}
    written = train(settings(tmp_path, spelled_out))["best"]
    assert load_network(written)[1].args == SMALL
    task = AcousticScenes(Arch("rep_mobile", SMALL), settings(tmp_path, {}))
    assert task.metric_protocol == "10 scenes, 1 s of log-mel; macro: mean over classes"


def test_every_stage_of_a_chain_keeps_the_settings(tmp_path: Path) -> None:
    teacher = train(settings(tmp_path, LOW_RATE))["best"]
    chain = settings(tmp_path, {}, teacher=str(teacher), model=None, pruning_ratio=0.5)
    prune(chain)
    finetune(chain)
    rebuilt = rebuild(chain).path
    arch = load_network(rebuilt)[1]
    assert mel_settings(arch.args["log_mel"]) == MelSettings(**LOW_RATE)
    assert "sample_rate=8000, n_mels=49" in evaluate([rebuilt], settings(tmp_path, {})).protocol


@pytest.mark.parametrize(
    ("own", "given", "line"),
    [
        ({}, {"n_mels": 64}, "n_mels=256, the configuration says data.audio.n_mels=64: leave"),
        ({"n_mels": 64}, {"n_mels": 256}, "n_mels=64, the configuration says data.audio.n_mels"),
        (LOW_RATE, {"sample_rate": 16_000}, "sample_rate=8000, .* data.audio.sample_rate=16000"),
        (LOW_RATE, {**LOW_RATE, "f_min": 60.0}, "f_min=50, .* data.audio.f_min=60"),
    ],
)
def test_other_settings_than_those_of_a_network_are_refused(
    tmp_path: Path, own: dict[str, Any], given: dict[str, Any], line: str
) -> None:
    args = {"log_mel": MelSettings(**own).plain} if own else {}
    path = write_network(tmp_path / "net.pth", **args)
    readers = (
        lambda: evaluate([path], settings(tmp_path, given)),
        lambda: train(
            settings(tmp_path, given, model={"name": "rep_mobile", "weights": str(path)})
        ),
        lambda: prune(settings(tmp_path, given, teacher=str(path), model=None, pruning_ratio=0.5)),
    )
    for read in readers:
        with pytest.raises(KdpError, match=line) as error:
            read()
        assert "\n" not in str(error.value)


def test_networks_with_different_settings_are_not_compared(tmp_path: Path) -> None:
    log_mel = MelSettings(n_mels=64).plain
    first = write_network(tmp_path / "a.pth")
    second = write_network(tmp_path / "b.pth", log_mel=log_mel)
    with pytest.raises(KdpError, match=r"b\.pth \(10 scenes, 1 s of log-mel \(n_mels=64\)"):
        evaluate([first, second], settings(tmp_path, {}))


@pytest.mark.parametrize("stage", [train, cache_targets])
def test_a_teacher_with_other_settings_is_refused(tmp_path: Path, stage: Any) -> None:
    teacher = write_network(tmp_path / "teacher.pth", log_mel=MelSettings(n_mels=64).plain)
    distill = {"teacher": {"weights": str(teacher)}, "losses": {"logits": {}}}
    with pytest.raises(KdpError, match=r"teacher\.pth reads other inputs than the student: .*64"):
        stage(settings(tmp_path, {}, distill=distill))


@pytest.mark.parametrize("changed", [{"f_min": 20.0}, {"hop_length": 400}, {"sample_rate": 16_000}])
def test_cached_targets_and_checkpoints_are_of_one_setting(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    teacher = write_network(tmp_path / "teacher.pth")
    distill = {"teacher": {"weights": str(teacher)}, "losses": {"logits": {}}}
    cached = {
        **distill,
        "target_cache": str(cache_targets(settings(tmp_path, {}, distill=distill)).folder),
    }
    with pytest.raises(KdpError, match="targets"):
        train(settings(tmp_path, changed, distill=cached))
    steps = {**STEPS, "checkpoint_every": 1}
    train(settings(tmp_path, {}, train=steps))
    with pytest.raises(KdpError, match=rf"other settings \(data\.audio\.{next(iter(changed))}\)"):
        train(settings(tmp_path, changed, train=steps), resume=True)


@pytest.mark.parametrize(
    ("audio", "line"),
    [
        ({"hop_length": 0}, "hop_length"),
        ({"hop_length": 32_001}, r"hop_length \(32001\) is longer than a second"),
        ({"window_length": 4097}, r"window_length \(4097\) is longer than n_fft \(4096\)"),
        ({"n_fft": 2048}, r"window_length \(3072\) is longer than n_fft \(2048\)"),
        ({"n_fft": 4095}, "n_fft"),
        ({"sample_rate": 2000}, r"half of n_fft \(4096\) is not shorter than a second"),
        ({"f_max": 16_001.0}, r"f_max \(16001 Hz\) is above half of sample_rate, 16000 Hz"),
        ({"f_min": 8000.0, "f_max": 8000.0}, r"f_min \(8000 Hz\) is not below f_max \(8000 Hz\)"),
        ({"n_mels": 48}, r"frequency_mask \(48\) must be smaller than n_mels \(48\)"),
        ({"n_mels": 60, "n_fft": 100, "window_length": 100}, "more than half of n_fft"),
        ({"hop_length": 1, "n_fft": 4096}, "too short for n_fft"),
    ],
)
def test_settings_without_a_spectrogram_are_refused(audio: dict[str, Any], line: str) -> None:
    overrides = [f"data.audio.{key}={value}" for key, value in audio.items()]
    with pytest.raises(KdpError, match=line) as error:
        load_config(Path("cp_mobile.yml"), overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "log_mel", [{"hop_length": 0}, {"n_mels": "many"}, {"bins": 64}, {"window_length": 9999}, 64]
)
def test_a_damaged_file_with_unusable_settings_is_refused(tmp_path: Path, log_mel: Any) -> None:
    path = write_network(tmp_path / "net.pth")
    artifact = load(path)
    assert artifact.arch
    damaged = artifact.arch.with_args(log_mel=log_mel)
    save(path, Artifact(artifact.params, damaged, artifact.record))
    with pytest.raises(KdpError, match=r"net\.pth: cannot build 'rep_mobile': log_mel") as error:
        evaluate([path], settings(tmp_path, {}))
    assert "\n" not in str(error.value)


def test_bins_that_are_always_empty_are_named(tmp_path: Path, messages: list[str]) -> None:
    audio = {"n_fft": 512, "window_length": 512}
    AcousticScenes(
        Arch("rep_mobile", {**SMALL, "log_mel": MelSettings(**audio).plain}), settings(tmp_path, {})
    )
    (line,) = messages
    assert "of 256 mel bins are always empty" in line
    assert "raise n_fft or lower n_mels" in line


def test_an_export_describes_its_input_and_is_read_with_it(tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.pth", log_mel=MelSettings(**LOW_RATE).plain)
    exported = tmp_path / "net.onnx"
    done = CliRunner().invoke(app, ["export", str(path), "-o", str(exported)])
    assert done.exit_code == 0, done.output
    model = onnx.load(exported)
    (metadata,) = [json.loads(p.value) for p in model.metadata_props if p.key == "kdp"]
    assert metadata["input"] == "log-mel of 1 s at 8000 Hz, (batch, 1, 49, 41)"
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape[1:] == [1, *LOW_RATE_SIZE]
    columns = evaluate([path, exported], settings(tmp_path, {})).columns
    first, second = (column.quality["toy"]["accuracy"] for column in columns)
    assert first == second
