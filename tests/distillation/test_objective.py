"""The distillation objective: its total, samples, shares and taps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kdp.config import DistillConfig
from kdp.distillation.objective import Distiller
from kdp.distillation.teacher import TeacherEnsemble
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.taps import Taps
from tests.conftest import TINY
from tests.distillation.helpers import BATCH, tiny_ensemble


def feature_distiller(ensemble: TeacherEnsemble, losses: dict[str, Any]) -> Distiller:
    torch.manual_seed(5)
    return Distiller(
        DistillConfig.model_validate({"task_weight": 0, "losses": losses}),
        build("catanet", **TINY).eval(),
        ensemble,
        taps={"mid_convs.0": "mid_convs.1"},
        inputs=lambda batch: batch["lr"],
        task_loss=lambda output, batch: (output - batch["hr"]).abs().mean(),
        steps=10,
        seed=0,
        probe=BATCH,
        confidence_map=lambda output: output.flatten(1),
    )


def test_feature_losses_are_averaged_by_the_shares_of_the_teachers() -> None:
    def loss(source: TeacherEnsemble) -> float:
        distiller = feature_distiller(source, {"feature": {}})
        torch.manual_seed(5)
        network = build("catanet", **TINY).eval()
        distiller.taps.modules = {"mid_convs.0": network.get_submodule("mid_convs.0")}
        return float(distiller(network, BATCH, 0)[0].detach())

    both = tiny_ensemble(2, shares=[3, 1])
    alone = [
        TeacherEnsemble([teacher.model], ["mid_convs.1"], lambda batch: batch["lr"])
        for teacher in both.teachers
    ]
    expected = 0.75 * loss(alone[0]) + 0.25 * loss(alone[1])
    assert loss(both) == pytest.approx(expected, rel=1e-5)


TAPS = {name: name for name in ("mid_convs.0", "mid_convs.1")}


def distiller(student: nn.Module, **changes: Any) -> Distiller:
    config = DistillConfig.model_validate(
        {
            "task_weight": 0.5,
            "losses": {
                "output": {"weight": 0.25, "schedule": "linear"},
                "feature": {"weight": 2},
                "fakd": {"weight": 10, "options": {"sample": 7}},
            },
            **changes,
        }
    )
    torch.manual_seed(9)
    teacher = TeacherEnsemble(
        [build("catanet", **TINY)], list(TAPS.values()), lambda batch: batch["lr"]
    )
    return Distiller(
        config,
        student,
        teacher,
        taps=TAPS,
        inputs=lambda batch: batch["lr"],
        task_loss=lambda output, batch: (output - batch["hr"]).square().mean(),
        steps=10,
        seed=3,
        probe={"lr": torch.rand(1, 3, 12, 12), "hr": torch.rand(1, 3, 24, 24)},
        confidence_map=lambda output: output.flatten(1),
    )


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    torch.manual_seed(1)
    student = build("catanet", **TINY).eval()
    batch = {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 24, 24)}
    total, parts = distiller(student)(student, batch, step=6)
    numbers = {name: float(part.detach()) for name, part in parts.items()}
    assert list(numbers) == ["task", "output", "feature", "fakd"]
    assert min(numbers.values()) > 0
    expected = 0.5 * numbers["task"] + 0.25 * 0.4 * numbers["output"]
    expected += 2 * numbers["feature"] + 10 * numbers["fakd"]
    assert float(total.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_step_always_draws_the_same_sample() -> None:
    torch.manual_seed(1)
    student = build("catanet", **TINY).eval()
    batch = {"lr": torch.rand(2, 3, 12, 12), "hr": torch.rand(2, 3, 24, 24)}
    first, second = distiller(student), distiller(student)
    first(student, batch, step=0)
    losses = [
        float(distiller(student, batch, step=step)[1]["fakd"].detach())
        for distiller, step in ((first, 1), (second, 1), (second, 2))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_a_tap_that_does_not_run_is_rejected() -> None:
    student = build("catanet", **TINY)
    objective = distiller(student, losses={"feature": {}})
    objective.taps = Taps(student, ["mid_convs.0"])
    batch = {"lr": torch.rand(1, 3, 12, 12), "hr": torch.rand(1, 3, 24, 24)}
    with pytest.raises(KdpError, match=r"'mid_convs.1' does not run"):
        objective(student, batch, step=0)
