"""Small face-mask classifiers and a configuration that trains and prunes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdp.config import Config
from kdp.models import build
from kdp.tasks.classification.task import Classification
from kdp.types import Arch
from tests.runs import SHORT

SMALL = {"channels": [4, 6, 8], "dropout": 0.0, "image_size": 32}


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def lively(**args: Any) -> nn.Module:
    """A network in eval mode with non-trivial batch statistics."""
    torch.manual_seed(0)
    model = build("mask_classifier", **args)
    for _ in range(3):
        model(torch.rand(4, 3, 32, 32))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def groups_of(model: nn.Module) -> list[Any]:
    arch = Arch("mask_classifier", {})
    config = Config.model_validate({"output": {"name": "x"}})
    return Classification(arch, config).groups(model)


def settings(folder: Path, **changes: Any) -> Config:
    """The whole chain on the toy faces at 32x32, with a network that is fast to train."""
    plain = {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder / "w"), "runs": str(folder / "runs")},
        "model": {"name": "mask_classifier", "args": SMALL},
        "teacher": str(folder / "w/tiny.pth"),
        "evaluation": {"toy": {}},
        "prune": {"criterion": "magnitude", "calibration": {"patches": 8}},
        "distill": {"losses": {"logits": {}}},
        "train": {**SHORT, "batch_size": 16},
        "finetune": {**SHORT, "batch_size": 16},
    }
    return Config.model_validate({**plain, **changes})


def task_of(folder: Path, **args: Any) -> Classification:
    arch = Arch("mask_classifier", {**SMALL, **args})
    return Classification(arch, settings(folder))
