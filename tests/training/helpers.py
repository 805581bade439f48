"""A toy training, and ways to stop it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.config import TrainConfig
from kdp.training.job import TrainingJob, TrainingResult
from kdp.training.running import RunningMetrics
from tests.conftest import same_params
from tests.runs import SHORT

Hook = Callable[[int], None]


class Numbers(Dataset[dict[str, Tensor]]):
    """Random points, numbered."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(number))
        return {"x": x, "y": x.sum(dim=0, keepdim=True)}


def errors(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return (output - batch["y"]).square().flatten()


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**SHORT, "lr": 0.01, "steps": 8, **changes})


def toy_job(folder: Path, at_step: Hook = lambda step: None, **changes: Any) -> TrainingJob:
    """A small network with dropout and batch statistics; `at_step` runs inside every step."""
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    running = RunningMetrics(lambda output, batch: {"score": -errors(output, batch)})
    observed_loss = running.observe(lambda output, batch: errors(output, batch).mean())

    def objective(
        model: nn.Module, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        at_step(step)
        loss = observed_loss(model(batch["x"]), batch)
        return loss, {"task": loss}

    def validate(model: nn.Module) -> dict[str, dict[str, float]]:
        model.eval()
        sample = torch.stack([Numbers(8)[i]["x"] for i in range(8)])
        with torch.no_grad():
            error = (model(sample).flatten() - sample.sum(dim=1)).square().mean()
        return {"toy": {"score": -float(error)}}

    defaults: dict[str, Any] = {
        "model": nn.Sequential(*layers),
        "data": Numbers,
        "objective": objective,
        "validate": validate,
        "primary_metric": "score",
        "running_metrics": running,
        "settings": settings(),
        "folder": folder,
        "device": "cpu",
        "signature": {"lr": 0.01},
    }
    return TrainingJob(**{**defaults, **changes})


def best_at_step_4(folder: Path, at_step: Hook = lambda step: None, **changes: Any) -> TrainingJob:
    """A toy job whose validation is best at step 4."""
    job = toy_job(folder, at_step, settings=settings(steps=20, patience=6), **changes)
    job.validate = lambda model: {"toy": {"score": -abs(4.0 - model[1].num_batches_tracked.item())}}
    return job


def stop_at(last_step: int, stop: Callable[[], None]) -> Hook:
    def at_step(step: int) -> None:
        if step == last_step:
            stop()

    return at_step


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def crash() -> None:
    raise RuntimeError("the power failed")


def curve_rows(folder: Path) -> list[dict[str, Any]]:
    """The curves without the times."""
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines]


def assert_equal_runs(a: TrainingResult, b: TrainingResult) -> None:
    assert same_params(a.last, b.last)
    assert same_params(a.best, b.best)
    assert (a.last_metrics, a.best_metrics) == (b.last_metrics, b.best_metrics)
    assert a.best_step == b.best_step
