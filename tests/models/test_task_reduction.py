"""What the weights of distillation losses are relative to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from kdp.config import Config
from kdp.models import build
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import DistillRequest
from kdp.tasks import task_for
from tests.models.yolo_helpers import config as detector
from tests.runs import config as upscaler
from tests.runs import prune


def share_of_the_weight(settings: Config, loss: str, weight: float, batch_size: int) -> float:
    """What part of its weight a loss has in the total, beside the mean of the task loss."""
    assert settings.model is not None
    arch = settings.model.arch
    task = task_for(arch, settings)
    torch.manual_seed(1)
    student = build(arch.name, **arch.args)
    request = DistillRequest.from_config(settings)
    objective = build_objective(task, student, request, 4)
    batch = default_collate([objective.data(batch_size)[i] for i in range(batch_size)])
    with torch.no_grad():
        total, parts = objective.objective(student.train(), batch, 0)
    return float((total - parts["task"]) / (weight * parts[loss]))


@pytest.mark.parametrize(
    ("reduction", "batch_size", "share"),
    [(None, 2, 1 / 2), (None, 3, 1 / 3), ("sum", 4, 1 / 4), ("mean", 4, 1)],
)
def test_weights_of_detection_are_relative_to_the_sum_of_the_batch(
    yolo_folder: Path, reduction: str | None, batch_size: int, share: float
) -> None:
    losses = {"attention_transfer": {"weight": 40.0}}
    settings = detector(yolo_folder, distill={"losses": losses, "task_reduction": reduction})
    assert share_of_the_weight(settings, "attention_transfer", 40, batch_size) == pytest.approx(
        share, rel=1e-3
    )


@pytest.mark.parametrize(("reduction", "share"), [(None, 1), ("mean", 1), ("sum", 1 / 2)])
def test_weights_of_other_families_are_relative_to_the_mean(
    tmp_path: Path, reduction: str | None, share: float
) -> None:
    prune(tmp_path)
    distill = {"losses": {"output": {"weight": 3.0}}, "task_reduction": reduction}
    settings = upscaler(tmp_path, distill=distill)
    assert share_of_the_weight(settings, "output", 3, 2) == pytest.approx(share, rel=1e-3)
