"""The training loop: what it computes, keeps and rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.training.loop import fit
from tests.conftest import same_params
from tests.training.helpers import best_at_step_4, curve_rows, settings, toy_job


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    scores, weights = iter([1.0, 3.0, 2.0, 3.0]), []

    def validate(model: nn.Module) -> dict[str, dict[str, float]]:
        weights.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"first": {"score": next(scores)}, "second": {"score": 9.0}}

    result = fit(toy_job(tmp_path, validate=validate))
    assert result.best_step == 4
    assert same_params(result.best, weights[1])
    assert same_params(result.last, weights[3])
    assert result.best_metrics["first"] == {"score": 3.0}
    assert not same_params(weights[1], weights[3])


def test_the_best_weights_are_not_from_before_best_from_step(tmp_path: Path) -> None:
    scores = iter([9.0, 1.0, 3.0, 2.0])

    def validate(model: nn.Module) -> dict[str, dict[str, float]]:
        return {"first": {"score": next(scores)}}

    job = toy_job(tmp_path, validate=validate)
    job.best_from_step = 3
    result = fit(job)
    assert result.best_step > 2
    assert result.best_metrics == {"first": {"score": 3.0}}


def test_patience_stops_a_training_that_does_not_improve(
    tmp_path: Path, messages: list[str]
) -> None:
    result = fit(best_at_step_4(tmp_path))
    assert result.best_step == 4
    assert curve_rows(tmp_path)[-1]["step"] == 10
    assert "Early stopping: score has not improved since step 4" in messages


def test_the_ema_matches_its_formula(tmp_path: Path) -> None:
    history: list[Tensor] = []
    job = toy_job(tmp_path, settings=settings(ema_decay=0.3))
    job.after_step = lambda model, step: (
        history.append(model[0].weight.detach().clone()) if model is job.model else None
    )
    result = fit(job)
    average = history[0]
    for count, weight in enumerate(history[1:], start=1):
        keep = min(0.3, (1 + count) / (10 + count))
        average = keep * average + (1 - keep) * weight
    assert torch.allclose(result.last["0.weight"], average, atol=1e-7)
    assert not torch.allclose(result.last["0.weight"], history[-1], atol=1e-4)


def test_with_zero_decay_the_ema_is_the_network(tmp_path: Path) -> None:
    job = toy_job(tmp_path, settings=settings(ema_decay=0.0))
    assert same_params(fit(job).last, dict(job.model.state_dict()))


def test_every_step_uses_the_scheduled_learning_rate(tmp_path: Path) -> None:
    changes = {"steps": 12, "warmup_steps": 2, "schedule": "trapezoid", "decay_steps": 4}
    wanted = settings(**changes)
    fit(toy_job(tmp_path, settings=wanted))
    logged = [row["lr"] for row in curve_rows(tmp_path) if "loss" in row]
    tail = [0.01 * part for part in (1, 0.75, 0.5, 0.25)]
    assert logged == pytest.approx([0.005, 0.01] + [0.01] * 6 + tail)


def test_a_nan_loss_ends_the_run(tmp_path: Path) -> None:
    def poison(step: int) -> None:
        if step == 5:
            job.model[0].weight.data.fill_(float("nan"))  # type: ignore[index]

    job = toy_job(tmp_path, poison)
    with pytest.raises(KdpError, match=r"the loss is nan at step 5.*learning rate"):
        fit(job)
    assert load(tmp_path / "checkpoint.pth").extra["training"]["step"] == 4


def test_nan_weights_never_reach_the_checkpoint(tmp_path: Path) -> None:
    def spoil(step: int) -> None:
        if step == 3:
            job.model[0].weight.register_hook(lambda grad: grad * float("nan"))  # type: ignore[index]

    job = toy_job(tmp_path, spoil)
    with pytest.raises(KdpError, match=r"0\.weight are no longer finite"):
        fit(job)
    assert load(tmp_path / "checkpoint.pth").extra["training"]["step"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda:0"}, "CUDA_VISIBLE_DEVICES"),
        ({"settings": settings(mixed_precision="fp16")}, "fp16 needs a GPU"),
    ],
)
def test_unsupported_devices_and_precisions_are_rejected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError, match=message):
        fit(toy_job(tmp_path, **changes))


def test_curves_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KdpError, match=r"cannot write .*curves\.jsonl"):
        fit(toy_job(tmp_path / "file" / "run"))
