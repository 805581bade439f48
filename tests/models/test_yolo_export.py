"""Exports of YOLO11."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import Artifact, make_record, save
from kdp.data.images import read_rgb
from kdp.errors import KdpError
from kdp.models.loading import load_runnable
from kdp.models.yolo11 import decode
from kdp.stages.export import export as export_stage
from kdp.stages.export.export import ExportRequest, export
from kdp.tasks import task_for
from tests.models.yolo_helpers import ARCH, SIZE, config, lively


def test_exports_detect_what_the_network_detects(yolo_folder: Path) -> None:
    model, settings = lively(), config(yolo_folder)
    file = yolo_folder / "net.pth"
    save(file, Artifact(model.state_dict(), ARCH, make_record("train", {})))
    task = task_for(ARCH, settings)
    onnx = export(file, ExportRequest("onnx"), settings).path
    script = torch.jit.load(export(file, ExportRequest("torchscript"), settings).path)
    plain = export(file, ExportRequest("ultralytics"), settings).path
    x = torch.rand(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = decode(model(x), (SIZE, SIZE))
        for network in (load_runnable(onnx)[0], load_runnable(plain)[0], script):
            decoded = task.decoded(network(x), (SIZE, SIZE))
            torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-3)
    for network in (load_runnable(onnx)[0], load_runnable(plain)[0]):
        # Rounding may exchange two detections of nearly the same probability.
        assert task.evaluate(network)["toy"] == pytest.approx(task.evaluate(model)["toy"], abs=1e-3)


def test_an_export_with_wrong_probabilities_is_rejected(
    yolo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance for coordinates of several hundred pixels would not notice."""
    torchscript = export_stage.TORCHSCRIPT

    def forgetful(*arguments: Any) -> Any:
        content, run = torchscript.write(*arguments)
        return content, lambda x: torch.cat([run(x)[:, :4], run(x)[:, 4:] * 0], 1)

    fake = replace(torchscript, write=forgetful, suffix=".onnx", precisions=("fp32", "int8"))
    monkeypatch.setattr(export_stage, "onnx_format", lambda: fake)
    for precision in ("fp32", "int8"):
        with pytest.raises(KdpError, match="differs from the original by 1"):
            export(
                yolo_folder / "teacher.pth", ExportRequest("onnx", precision), config(yolo_folder)
            )


def test_an_export_is_run_at_its_own_size(yolo_folder: Path) -> None:
    teacher, settings = yolo_folder / "teacher.pth", config(yolo_folder)
    with pytest.raises(KdpError, match="--size 64 96: yolo11 reads squares"):
        export(teacher, ExportRequest("onnx", size=(64, 96)), settings)
    small = export(teacher, ExportRequest("onnx", size=(64, 64)), settings).path
    network, arch, _ = load_runnable(small)
    image = read_rgb(yolo_folder / "voc/JPEGImages/0.jpg")
    assert list(task_for(arch, settings).detect(network, iter([image]), 0.001, 0.45))
