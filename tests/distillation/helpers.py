"""Tiny teachers and students."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config
from kdp.distillation.teacher import TeacherEnsemble
from kdp.models import build
from kdp.types import Arch
from tests.conftest import TINY
from tests.runs import config

NARROW = {**TINY, "dim": 6, "patch_sizes": [8], "num_tokens": [4], "group_sizes": [16]}

_RANDOM = torch.Generator().manual_seed(0)
BATCH = {
    "lr": torch.rand(2, 3, 12, 12, generator=_RANDOM),
    "hr": torch.rand(2, 3, 24, 24, generator=_RANDOM),
}

LOSSES = {"output": {}, "feature": {}, "feature_l2": {}, "fakd": {"options": {"sample": 16}}}


def teacher_files(folder: Path, count: int = 1) -> list[str]:
    """Files of tiny networks with different weights."""
    paths = []
    for seed in range(count):
        torch.manual_seed(seed)
        path = folder / f"teacher_{seed}.pth"
        paths.append(str(path))
        if path.exists():
            continue
        model, arch = build("catanet", **TINY), Arch("catanet", TINY)
        model(torch.rand(2, 3, 12, 12))  # without token centres it would depend on its batch
        save(path, Artifact(model.state_dict(), arch, make_record("train", {"seed": seed})))
    return paths


def student_config(folder: Path, name: str = "student", **distill: Any) -> Config:
    """A configuration that trains a narrow network by distillation."""
    weights = teacher_files(folder)[0]
    sections = {
        "teacher": {"weights": weights},
        "losses": LOSSES,
        "taps": {"mid_convs.0": "mid_convs.1"},
        **distill,
    }
    output = {"name": name, "dir": str(folder / "w"), "runs": str(folder / "runs")}
    model = {"name": "catanet", "args": NARROW}
    return config(folder, teacher=None, model=model, output=output, distill=sections)


def tiny_ensemble(count: int, shares: list[float] | None = None) -> TeacherEnsemble:
    torch.manual_seed(1)
    models = [build("catanet", **TINY) for _ in range(count)]
    return TeacherEnsemble(models, ["mid_convs.1"], lambda batch: batch["lr"], shares)
