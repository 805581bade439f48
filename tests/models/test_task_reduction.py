"""What the weights of distillation losses are relative to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from kdp.config import Config
from kdp.models import build
from kdp.stages.replacing import TrainingTargets
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import DistillRequest, TrainingRequest
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


@pytest.mark.parametrize(
    ("make", "reduction", "signed"),
    [
        (detector, None, "sum"),
        (detector, "mean", None),
        (upscaler, None, None),
        (upscaler, "sum", "sum"),
        (upscaler, "mean", None),
    ],
)
def test_a_checkpoint_says_what_weights_were_relative_to(
    tmp_path: Path, make: Callable[..., Config], reduction: str | None, signed: str | None
) -> None:
    """Those of earlier versions have no such key and resume where the mean is meant."""
    distill = {"losses": {"output": {}}, "task_reduction": reduction}
    prune(tmp_path)
    request = TrainingRequest.from_config(make(tmp_path, distill=distill), "train")
    assert request.config.model is not None
    task = task_for(request.config.model.arch, request.config)
    counted = request.counted(3, task.task_reduction)
    signature = TrainingTargets(counted, [], [], []).checkpoint.signature
    assert signature.get("distill.task_reduction") == signed
