"""The audio transformer as a teacher: small from scratch, or from a folder of `transformers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.audio_transformer import pretrained
from kdp.models.loading import load_network
from kdp.stages.train.train import train
from tests.in_process import call_kdp
from tests.models.audio_transformer_helpers import SIZES, write_pretrained
from tests.tasks.test_scenes import settings

pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network for ten seconds and 527 classes, as `transformers` saves it."""
    torch.manual_seed(0)
    return write_pretrained(tmp_path / "ast", max_length=1024, num_labels=527)


def test_the_teacher_accepts_the_students_input() -> None:
    assert build("audio_transformer", **SIZES)(torch.randn(2, 1, 256, 65)).shape == (2, 10)


def test_position_embeddings_are_cropped_to_the_middle(folder: Path) -> None:
    from safetensors.torch import load_file

    before = load_file(folder / "model.safetensors")
    name = "embeddings.position_embeddings"
    whole = before[f"audio_spectrogram_transformer.{name}"][0, 2:].unflatten(0, (2, 101))
    model, args = pretrained(folder, {"frames": 46})
    own = model.body.state_dict()[name][0, 2:].unflatten(0, (2, 4))
    assert torch.equal(own, whole[:, 48:52])
    assert args["hidden_size"] == 12


def test_a_training_starts_from_a_folder_of_weights(folder: Path, tmp_path: Path) -> None:
    model = {"name": "audio_transformer", "weights": str(folder), "args": {"frames": 26}}
    best = train(settings(tmp_path, model=model))["best"]
    network, arch, _ = load_network(best)
    assert arch.args["num_mel_bins"] == 32
    assert network(torch.randn(1, 1, 256, 65)).shape == (1, 10)
    (parent,) = load(best).record.parents
    assert parent.path == str(folder / "model.safetensors")


def test_a_pickle_is_not_loaded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(KdpError, match="no audio transformer in safetensors"):
        pretrained(folder, {})


def test_other_families_start_from_a_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KdpError, match="starts from a file"):
        train(settings(tmp_path, model={"name": "cp_mobile", "weights": str(folder)}))


def test_weights_that_are_not_finite_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    params = load_file(folder / "model.safetensors")
    name = next(name for name in params if ".0." in name and name.endswith(".bias"))
    params[name][2] = torch.inf
    save_file(params, folder / "model.safetensors", {"format": "pt"})
    model = {"name": "audio_transformer", "weights": str(folder), "args": {"frames": 26}}
    with pytest.raises(KdpError, match=r"ast holds values that are not finite .*\.bias"):
        train(settings(tmp_path, model=model))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", lambda data: data[:40]),
        ("model.safetensors", lambda data: data[:8] + b"\0" + data[9:]),
        ("config.json", lambda data: data.replace(b'"max_length": 1024', b'"max_length": "x"')),
        ("config.json", lambda data: data.replace(b'"hidden_size": 12', b'"dtype": "nothing"')),
    ],
)
def test_a_damaged_folder_is_named(
    folder: Path, name: str, change: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (folder / name).read_bytes()
    (folder / name).write_bytes(change(before))
    assert (folder / name).read_bytes() != before
    with pytest.raises(KdpError, match="ast holds no audio transformer"):
        pretrained(folder, {})
    assert not capfd.readouterr().err


@pytest.mark.parametrize("args", [{"frames": 1}, {"frames": 10**9}, {"num_mel_bins": 2}])
def test_arguments_that_a_folder_does_not_fit_are_one_line(
    folder: Path, args: dict[str, int]
) -> None:
    with pytest.raises(KdpError, match="ast does not fit these arguments"):
        pretrained(folder, args)


def command(folder: Path, output: Path, *overrides: str) -> list[str]:
    """The documented command, made short."""
    brief = ["train.steps=1", "train.batch_size=4", "train.warmup_steps=0", f"output.dir={output}"]
    weights = f"model.weights={folder}"
    return ["train", "--config", "scenes_teacher.yml", weights, *brief, *overrides]


@pytest.mark.parametrize(
    ("sizes", "frames"),
    [
        ({"max_length": 1024, "num_labels": 527}, 101),
        ({"max_length": 64}, 64),
        ({"hidden_size": 20, "num_attention_heads": 4, "num_hidden_layers": 1}, 101),
        ({"num_mel_bins": 64, "patch_size": 8, "frequency_stride": 4, "time_stride": 6}, 101),
    ],
)
def test_the_command_trains_a_folder_of_any_size(
    tmp_path: Path, sizes: dict[str, int], frames: int
) -> None:
    folder = write_pretrained(tmp_path / "ast", **sizes)
    done = call_kdp(*command(folder, tmp_path / "out"))
    assert done.code == 0, done.stderr
    assert f"Sizes of {folder} replace those of model.args: hidden_size" in done.stderr
    _, arch, _ = load_network(tmp_path / "out" / "scenes_teacher.pth")
    own = {key: arch.args[key] for key in sizes if key in arch.args}
    assert own == {key: sizes[key] for key in own}
    assert (arch.args["intermediate_size"], arch.args["frames"]) == (
        SIZES["intermediate_size"],
        frames,
    )


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; kdp knows 'gelu' only"),
        ({"layer_norm_eps": 1e-3}, "layer_norm_eps is 0.001"),
        ({"qkv_bias": False}, "qkv_bias is False"),
        ({"num_hidden_layers": 1}, "and 14 more, which config.json does not describe"),
        ({"num_hidden_layers": 3}, "model.safetensors lacks layers.2."),
        ({"hidden_size": 24}, "holds no audio transformer in safetensors"),
    ],
)
def test_a_folder_that_would_be_computed_wrongly_is_refused(
    folder: Path, tmp_path: Path, config: dict[str, Any], reason: str
) -> None:
    change_config(folder, **config)
    done = call_kdp(*command(folder, tmp_path / "out"))
    assert done.code == 2
    assert reason in done.line
    assert [line for line in done.stderr.splitlines() if line.startswith("kdp:")] == [done.line]
    assert not (tmp_path / "out").exists()


def test_more_frames_than_the_folder_was_trained_on_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    change_config(folder, max_length=1024)
    done = call_kdp(*command(folder, tmp_path / "out", "model.args.frames=1025"))
    assert (done.code, done.line) == (
        2,
        f"kdp: {folder} does not fit these arguments: frames=1025, and it was trained on 1024",
    )
