"""Networks of Ultralytics, and processes that run without kdp."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdp.models.ultralytics import import_ultralytics

INSTALLED = importlib.util.find_spec("ultralytics") is not None
needs_ultralytics = pytest.mark.skipif(not INSTALLED, reason="ultralytics is not installed")
CLASSES = ["red cell", "white cell", "platelet"]


def run(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a new process in this folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("YOLO_")}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, sorted(cwd.glob("*")))],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# Torchvision


@functools.cache
def broken_torchvision() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        return False
    done = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True)
    return done.returncode != 0


def validate(model: Any, data: Path, project: Path) -> list[float]:
    """Every metric of plain Ultralytics."""
    options = {"imgsz": 64, "batch": 2, "workers": 0, "plots": False, "verbose": False}
    metrics = model.val(data=str(data), project=str(project), device="cpu", **options)
    return [metrics.box.map, metrics.box.map50, *metrics.box.maps]


# Files of Ultralytics


def network(name: str = "yolo11n.yaml", seed: int = 0, kind: str = "DetectionModel") -> Any:
    """A network of Ultralytics whose weights are exact in half precision."""
    torch.manual_seed(seed)
    model = getattr(import_ultralytics("nn.tasks"), kind)(name, nc=3, verbose=False)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer) / 8)
    return model.half().float()


def equal(params: dict[str, Tensor], model: Any) -> bool:
    wanted = model.float().state_dict()
    assert list(params) == list(wanted)
    floats = (t for t in params.values() if t.is_floating_point())
    assert all(t.dtype == torch.float32 for t in floats)
    return all(torch.equal(params[name], tensor) for name, tensor in wanted.items())
