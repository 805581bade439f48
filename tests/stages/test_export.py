"""`kdp export`: exported files match PyTorch's outputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from kdp.artifacts import Artifact, load, make_record, save
from kdp.checksums import DamagedFileError
from kdp.cli import app
from kdp.data.images import png_bytes, read_rgb
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.onnx_file import load_onnx
from kdp.removed import REMOVED
from kdp.stages.export import check
from kdp.stages.export import export as stage
from kdp.stages.export import onnx as onnx_stage
from kdp.types import Arch
from kdp.written import write_output
from tests.conftest import TINY
from tests.traces import tracing_once

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FACES = {"channels": [4, 6, 8], "dropout": 0.0, "image_size": 32}
SOUNDS = {"stem": 4, "channels": [8, 8], "hidden": [10, 12], "strides": [[2, 2], [2, 2]]}
MEASURE = ("--set", "measure.latency_runs=2", "--set", "measure.warmup_runs=0", "--device", "cpu")


def kdp(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def network(folder: Path, name: str, args: dict[str, Any]) -> Path:
    """An artifact with non-trivial batch statistics and token centres."""
    torch.manual_seed(0)
    model = build(name, **args)
    for _ in range(2):
        model(torch.rand(2, 1 if name == "cp_mobile" else 3, 32, 32))
    if name == "mask_classifier":  # outputs that differ clearly from input to input
        model.get_submodule("head").weight.data.mul_(60)
    record = make_record("train", {})
    save(folder / f"{name}.pth", Artifact(model.state_dict(), Arch(name, args), record))
    return folder / f"{name}.pth"


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    with tracing_once():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier and a super-resolution network, and their exports."""
    folder = tmp_path_factory.mktemp("exports")
    faces = network(folder, "mask_classifier", FACES)
    for precision in ("fp32", "fp16", "int8"):
        done = kdp("export", faces, "--to", "onnx", "--precision", precision)
        assert done.exit_code == 0, done.exception
    large = network(folder, "catanet", TINY)
    for precision in ("fp32", "fp16"):
        done = kdp("export", large, "--precision", precision, "--size", "24", "20")
        assert done.exit_code == 0, done.exception
    return folder


@pytest.mark.parametrize("name", ["mask_classifier.onnx", "mask_classifier_int8.onnx"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_damaged_export_is_named(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(share * len(content))] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"{name} is damaged: its checksum differs"):
        load_onnx(tmp_path / name)


def run(path: Path, x: Tensor) -> Tensor:
    """Run an ONNX file with onnxruntime alone."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


@torch.no_grad()
def original(path: Path, x: Tensor) -> Tensor:
    model: nn.Module = load_network(path)[0]
    return model(x)


@pytest.mark.parametrize(
    "name",
    [
        "mask_classifier",
        "mask_classifier_fp16",
        "mask_classifier_int8",
        "catanet",
        "catanet_fp16",
    ],
)
def test_every_exported_file_is_valid_onnx(folder: Path, name: str) -> None:
    onnx.checker.check_model(folder / f"{name}.onnx", full_check=True)


@pytest.mark.parametrize("name", ["mask_classifier", "catanet"])
def test_a_file_holds_little_but_its_weights(folder: Path, name: str) -> None:
    about = load_onnx(folder / f"{name}.onnx")[0].about
    assert about["weight_bytes"] < 1.2 * 4 * about["parameters"]


def test_a_file_that_is_not_valid_onnx_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime runs graphs whose nodes are in any order."""

    def shuffled(proto: Any) -> Any:
        nodes = list(proto.graph.node)[::-1]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        return proto

    monkeypatch.setitem(onnx_stage._PRECISIONS, "fp32", shuffled)
    done = kdp("export", folder / "mask_classifier.pth", "-o", tmp_path / "x.onnx")
    assert "the exported network is not valid ONNX: Nodes in a graph" in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stage_name", "extra"),
    [
        ("prune", {}),  # as versions wrote it that did not list what was removed
        ("finetune", {}),
        ("train", {"axes": [["head.weight", 1]], "entries": torch.tensor([True] + [False] * 7)}),
    ],
)
@pytest.mark.parametrize("file_format", ["onnx", "torchscript"])
def test_a_masked_network_is_not_exported_at_full_size(
    folder: Path, tmp_path: Path, stage_name: str, extra: dict[str, Any], file_format: str
) -> None:
    artifact = load(folder / "mask_classifier.pth")
    artifact.params["head.weight"][:, 0] = 0
    more = {REMOVED: extra} if extra else {}
    masked = replace(artifact, record=make_record(stage_name, {}), extra=more)
    save(tmp_path / "net.pth", masked)
    done = kdp("export", tmp_path / "net.pth", "--format", file_format)
    assert "still holds its removed units" in str(done.exception)
    assert "kdp rebuild" in str(done.exception)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_list_of_nothing_removed_is_no_mask(folder: Path, tmp_path: Path) -> None:
    artifact = load(folder / "mask_classifier.pth")
    extra = {REMOVED: {"axes": [["head.weight", 1]], "entries": torch.zeros(8, dtype=torch.bool)}}
    save(tmp_path / "net.pth", replace(artifact, extra=extra))
    assert kdp("export", tmp_path / "net.pth", "--format", "torchscript").exit_code == 0


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (5, 3, 40, 36)])
def test_an_exported_classifier_matches_at_any_batch_and_size(folder: Path, shape: Any) -> None:
    x = torch.rand(shape)
    output = run(folder / "mask_classifier.onnx", x)
    expected = original(folder / "mask_classifier.pth", x)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("infix", "atol"), [("", 1e-4), ("_fp16", 1e-2)])
def test_exported_super_resolution_matches_at_its_fixed_size(
    folder: Path, infix: str, atol: float
) -> None:
    x = torch.rand(1, 3, 24, 20)
    expected = original(folder / "catanet.pth", x)
    output = run(folder / f"catanet{infix}.onnx", x)
    torch.testing.assert_close(output, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("precision", "atol"), [("fp16", 5e-3), ("int8", 0.1)])
def test_smaller_precisions_are_close_but_not_equal(
    folder: Path, precision: str, atol: float
) -> None:
    x = torch.rand(4, 3, 32, 32) * torch.tensor([1.0, 0.5, 0.2, 0.0]).view(4, 1, 1, 1)
    output = run(folder / f"mask_classifier_{precision}.onnx", x)
    expected = original(folder / "mask_classifier.pth", x)
    torch.testing.assert_close(output, expected, rtol=0, atol=atol)
    assert expected.std(0).max() > 2 * atol  # no constant would pass
    assert not torch.equal(output, expected)


def test_a_conversion_that_fails_is_a_one_line_error_and_writes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(proto: Any) -> Any:
        raise RuntimeError("no kernel\nin two lines")

    monkeypatch.setitem(onnx_stage._PRECISIONS, "fp16", failing)
    options = ("--precision", "fp16", "-o", tmp_path / "x.onnx")
    done = kdp("export", folder / "mask_classifier.pth", *options)
    assert isinstance(done.exception, KdpError)
    assert str(done.exception) == "this network cannot be converted to fp16: no kernel"
    assert not list(tmp_path.iterdir())


def test_torchscript_needs_nothing_but_torch(folder: Path, tmp_path: Path) -> None:
    done = kdp(
        "export",
        folder / "mask_classifier.pth",
        "--to",
        "torchscript",
        "-o",
        tmp_path / "x.torchscript",
    )
    assert done.stdout.splitlines()[-1] == str(tmp_path / "x.torchscript")
    x = torch.rand(3, 3, 48, 32)
    expected = original(folder / "mask_classifier.pth", x)
    torch.testing.assert_close(torch.jit.load(tmp_path / "x.torchscript")(x), expected)


def test_an_export_describes_its_inputs_and_outputs(folder: Path) -> None:
    about = load_onnx(folder / "mask_classifier.onnx")[0].about
    assert about["classes"] == ["with_mask", "without_mask"]
    assert about["input"] == "RGB in 0..1, resized to 32x32"
    assert about["output"] == "logits of the classes"


def test_compare_measures_an_export_beside_its_original(folder: Path, tmp_path: Path) -> None:
    files = [folder / f"mask_classifier{kind}" for kind in (".pth", ".onnx", "_int8.onnx")]
    done = kdp("compare", *files, *MEASURE, "--json", tmp_path / "table.json")
    assert done.exit_code == 0, done.exception
    rows = {
        row["name"]: row["values"]
        for row in json.loads((tmp_path / "table.json").read_text())["rows"]
    }
    assert rows["embedded accuracy"][0] == rows["embedded accuracy"][1]
    assert len(set(rows["parameters"])) == len(set(rows["MACs, all"])) == 1
    assert rows["file"] == [path.stat().st_size for path in files]
    assert all(milliseconds > 0 for milliseconds in rows["latency, median"])


def test_a_classifier_of_one_size_takes_any_batch_of_it_and_no_other_size(tmp_path: Path) -> None:
    sounds = network(tmp_path, "cp_mobile", SOUNDS)
    assert kdp("export", sounds, "--to", "onnx").exit_code == 0
    model = load_onnx(tmp_path / "cp_mobile.onnx")[0]
    x = torch.randn(3, 1, 256, 65)
    torch.testing.assert_close(model(x), original(sounds, x), rtol=0, atol=1e-4)
    with pytest.raises(KdpError, match="was exported for 256x65, the input is 64x65"):
        model(x[:, :, :64])


def test_infer_upscales_with_an_export_in_tiles_of_its_size(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, size in (("small", (16, 20)), ("large", (50, 30))):
        image = random.integers(0, 256, (*size, 3), np.uint8)
        (tmp_path / "in" / f"{name}.png").write_bytes(png_bytes(image))
    done = kdp("infer", folder / "catanet.onnx", tmp_path / "in", "--to", tmp_path / "onnx")
    assert done.exit_code == 0, done.exception
    assert read_rgb(tmp_path / "onnx" / "small.png").shape == (32, 40, 3)
    assert read_rgb(tmp_path / "onnx" / "large.png").shape == (100, 60, 3)


def test_infer_labels_with_an_export_as_with_its_original(folder: Path, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    (tmp_path / "face.png").write_bytes(png_bytes(image))
    answers = []
    for suffix in (".pth", ".onnx"):
        file = folder / f"mask_classifier{suffix}"
        done = kdp(
            "infer", file, tmp_path / "face.png", "--whole", "--headless", "--to", tmp_path / suffix
        )
        (face,) = json.loads(done.stdout.splitlines()[0])["faces"]
        answers.append((face["class"], round(face["probability"], 3)))
    assert answers[0] == answers[1]


def test_an_export_that_differs_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kept.torchscript"
    write_output(target, b"older")
    monkeypatch.setitem(check.TOLERANCES, "fp32", -1.0)
    done = kdp("export", folder / "mask_classifier.pth", "--to", "torchscript", "-o", target)
    assert isinstance(done.exception, KdpError)
    assert "differs from the original" in str(done.exception)
    assert target.read_bytes() == b"older"


@pytest.mark.parametrize("name", ["mask_classifier.onnx", "mask_classifier.torchscript"])
def test_an_export_contains_no_local_paths(folder: Path, name: str) -> None:
    kdp("export", folder / "mask_classifier.pth", "--to", "torchscript")
    content = (folder / name).read_bytes()
    for place in (folder, Path(stage.__file__).parent.parent.parent):
        assert str(place).encode() not in content


def test_an_input_larger_than_the_only_size_is_refused(folder: Path) -> None:
    sizes = ("--set", "measure.latency_size=[64,64]", "--set", "measure.input_size=[16,16]")
    done = kdp("compare", folder / "catanet.onnx", *sizes, *MEASURE)
    assert "was exported for 24x20 only" in str(done.exception)
    with pytest.raises(KdpError, match="was exported for 24x20, the input is 64x64"):
        load_onnx(folder / "catanet.onnx")[0](torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"", "cannot be run"), (b"no protobuf", "cannot be run")],
)
def test_an_invalid_onnx_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.onnx").write_bytes(content)
    done = kdp("compare", tmp_path / "x.onnx")
    assert isinstance(done.exception, KdpError)
    assert message in str(done.exception)


def test_an_onnx_file_of_another_program_is_refused(folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "mask_classifier.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    done = kdp("compare", tmp_path / "foreign.onnx")
    assert "was not written by `kdp export`" in str(done.exception)


def test_without_onnxruntime_the_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = kdp("compare", folder / "mask_classifier.onnx")
    assert "pip install onnx onnxruntime onnxscript" in str(done.exception)


def test_an_export_does_not_replace_its_source(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "net.torchscript"
    source.write_bytes((folder / "mask_classifier.pth").read_bytes())
    before = source.read_bytes()
    done = kdp("export", source, "--to", "torchscript")
    assert "is the network itself" in str(done.exception)
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--size", "0", "8"), "must be positive"),
        (("--size", "2", "2"), "does not accept an input of 2x2"),
        (("-o", "."), "is a folder"),
        (("-o", "net.pth"), "ends in .onnx"),
    ],
)
def test_a_wrong_option_is_a_one_line_error(
    folder: Path, more: tuple[str, ...], message: str
) -> None:
    done = kdp("export", folder / "mask_classifier.pth", "--to", "onnx", *more)
    assert isinstance(done.exception, KdpError)
    assert message in str(done.exception)


def test_a_network_that_overflows_is_refused_in_every_precision(
    folder: Path, tmp_path: Path
) -> None:
    artifact = load(folder / "mask_classifier.pth")
    next(p for p in artifact.params.values() if p.ndim == 4).fill_(3e38)
    save(tmp_path / "large.pth", artifact)
    for precision in ("fp32", "fp16", "int8"):
        done = kdp("export", tmp_path / "large.pth", "--to", "onnx", "--precision", precision)
        assert "large.pth: the network's output is not finite" in str(done.exception)
    assert not list(tmp_path.glob("*.onnx"))


def test_torchscript_has_one_precision(folder: Path) -> None:
    done = kdp(
        "export", folder / "mask_classifier.pth", "--to", "torchscript", "--precision", "int8"
    )
    assert "TorchScript is written in fp32" in str(done.exception)
