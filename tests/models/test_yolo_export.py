"""Exports of YOLO11."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from kdp.artifacts import Artifact, make_record, save
from kdp.data.images import read_rgb
from kdp.errors import KdpError
from kdp.models.loading import load_network, load_runnable
from kdp.models.torchvision_shim import install
from kdp.models.ultralytics import import_ultralytics
from kdp.models.yolo11 import decode
from kdp.stages.export import export as export_stage
from kdp.stages.export.export import ExportRequest, export
from kdp.tasks import task_for
from kdp.tasks.export_spec import ExportFormat
from tests.models.yolo_helpers import ARCH, SIZE, config, lively
from tests.traces import tracing_once

CLASSES = ("red cell", 'it\'s "white"', "血小板")
WIDTHS = [12, *[0] * 95]
"""Of a pruned network: the first convolution has 12 channels of 16."""


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    with tracing_once():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned detector in every precision of ONNX."""
    folder = tmp_path_factory.mktemp("detectors")
    arch = ARCH.with_args(classes=list(CLASSES), widths=WIDTHS)
    model = lively(classes=CLASSES, widths=WIDTHS)
    save(folder / "net.pth", Artifact(model.state_dict(), arch, make_record("rebuild", {})))
    for precision in ("fp32", "fp16", "int8"):
        export(folder / "net.pth", ExportRequest("onnx", precision), config(folder))
    return folder


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("precision", ["", "_fp16", "_int8"])
def test_every_exported_detector_is_valid_onnx(folder: Path, precision: str) -> None:
    onnx.checker.check_model(folder / f"net{precision}.onnx", full_check=True)


def test_opencv_computes_the_boxes_of_pytorch(folder: Path) -> None:
    x = torch.rand(1, 3, SIZE, SIZE)
    network = cv2.dnn.readNetFromONNX(str(folder / "net.onnx"))
    network.setInput(x.numpy())
    with torch.no_grad():
        expected = decode(load_network(folder / "net.pth")[0](x), (SIZE, SIZE))
    torch.testing.assert_close(torch.from_numpy(network.forward()), expected, rtol=0, atol=1e-3)


def test_no_operator_is_exported_that_old_opencv_misreads(folder: Path) -> None:
    """OpenCV 4.8 ignores the axes of a reduction that are given as an input."""
    graph = onnx.load(folder / "net.onnx").graph
    assert not [node.name for node in graph.node if node.op_type.startswith("Reduce")]


def test_metadata_are_those_of_ultralytics(folder: Path) -> None:
    entries = {e.key: e.value for e in onnx.load(folder / "net_fp16.onnx").metadata_props}
    assert ast.literal_eval(entries["names"]) == dict(enumerate(CLASSES))
    assert ast.literal_eval(entries["imgsz"]) == [SIZE, SIZE]
    assert (entries["stride"], entries["task"], entries["batch"]) == ("32", "detect", "1")


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (48, 96), (80, 50)])
def test_ultralytics_runs_an_exported_pruned_detector(folder: Path, shape: tuple[int, int]) -> None:
    install()
    threads = torch.get_num_threads()
    pixels = image(*shape)
    detector = import_ultralytics().YOLO(str(folder / "net.onnx"), task="detect")
    (there,) = detector.predict(pixels[:, :, ::-1], conf=1e-4, device="cpu", verbose=False)
    torch.set_num_threads(threads)
    assert there.names == dict(enumerate(CLASSES))
    model, arch, _ = load_runnable(folder / "net.onnx")
    task = task_for(arch, config(folder))
    (here,) = task.detect(model, iter([pixels]), 1e-4, 0.7)
    best = int(here.scores.argmax())
    assert float(there.boxes.conf[0]) == pytest.approx(float(here.scores[best]), rel=1e-2)
    torch.testing.assert_close(there.boxes.xyxy[0], here.corners[best].float(), rtol=0, atol=0.5)


def test_other_formats_detect_what_the_network_detects(yolo_folder: Path) -> None:
    settings, file = config(yolo_folder), yolo_folder / "teacher.pth"
    model = load_network(file)[0]
    script = torch.jit.load(export(file, ExportRequest("torchscript"), settings).path)
    plain = load_runnable(export(file, ExportRequest("ultralytics"), settings).path)[0]
    task = task_for(ARCH, settings)
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = decode(model(x), (SIZE, SIZE))
        for network in (plain, script):
            decoded = task.decoded(network(x), (SIZE, SIZE))
            torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-3)


def test_an_export_has_the_quality_of_its_network(folder: Path, yolo_folder: Path) -> None:
    model, _, _ = load_network(folder / "net.pth")
    task = task_for(ARCH, config(yolo_folder))
    exported = load_runnable(folder / "net.onnx")[0]
    # Rounding may exchange two detections of nearly the same probability.
    assert task.evaluate(exported)["toy"] == pytest.approx(task.evaluate(model)["toy"], abs=1e-3)


def changed(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the exported network's probabilities differ from the original's."""

    def write(model: Any, *_: Any) -> Any:
        @torch.no_grad()
        def run(x: torch.Tensor) -> torch.Tensor:
            boxes, probabilities = model(x).split((4, len(ARCH.args["classes"])), 1)
            return torch.cat([boxes, change(probabilities)], 1)

        return b"content", run

    fake = ExportFormat("ONNX", ".onnx", write, ("fp32", "fp16", "int8"))
    monkeypatch.setattr(export_stage, "onnx_format", lambda: fake)


@pytest.mark.parametrize(
    ("precision", "change", "message"),
    [
        ("fp32", lambda p: p * 0, "in its probabilities; the limit for fp32 is 0.0001"),
        ("int8", lambda p: p * 0, "its probabilities reach 0 in place of 0.0"),
        ("fp16", lambda p: p + 0.02, "by 0.02 in its probabilities; the limit for fp16 is 0.01"),
        ("fp16", lambda p: p * torch.nan, "by nan in its probabilities"),
    ],
)
def test_an_export_with_wrong_probabilities_is_rejected(
    yolo_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    change: Any,
    message: str,
) -> None:
    """A tolerance for coordinates of several hundred pixels would not notice."""
    changed(monkeypatch, change)
    request = ExportRequest("onnx", precision)
    with pytest.raises(KdpError, match=message):
        export(yolo_folder / "teacher.pth", request, config(yolo_folder))


@pytest.mark.parametrize(("precision", "factor"), [("fp32", 1.01), ("fp16", 1.3), ("int8", 0.3)])
def test_tiny_probabilities_may_differ_by_a_share_of_themselves(
    yolo_folder: Path, monkeypatch: pytest.MonkeyPatch, precision: str, factor: float
) -> None:
    """On noise a good detector is sure that there is nothing."""
    changed(monkeypatch, lambda p: p * factor)
    request = ExportRequest("onnx", precision)
    export(yolo_folder / "teacher.pth", request, config(yolo_folder))


def test_an_export_is_run_at_its_own_size(folder: Path, yolo_folder: Path) -> None:
    settings = config(yolo_folder)
    with pytest.raises(KdpError, match="--size 64 96: yolo11 reads squares"):
        export(folder / "net.pth", ExportRequest("onnx", size=(64, 96)), settings)
    network, arch, _ = load_runnable(folder / "net.onnx")
    pixels = read_rgb(yolo_folder / "voc/JPEGImages/0.jpg")
    assert list(task_for(arch, settings).detect(network, iter([pixels]), 0.001, 0.45))
