"""`kdp train`: a network from scratch or from given weights, on its ground truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config, TrainConfig
from kdp.errors import KdpError
from kdp.files import claim
from kdp.models import build
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.training.loop import Job, Result, fit


def train(config: Config, resume: bool = False) -> dict[str, Path]:
    """Train `model` as `train` says.

    Writes `{dir}/{name}.pth` (the best validation) and `{dir}/{name}_last.pth`, and in
    `{runs}/{name}_train/` the checkpoint and the curves.

    Raises:
        KdpError: a section is missing, or whatever the loop raises.
    """
    if config.model is None or config.train is None:
        raise KdpError("kdp train needs the sections `model` and `train`")
    started = time.time()
    arch = {"name": config.model.name, "args": config.model.args}
    paths = {
        "best": config.output.dir / f"{config.output.name}.pth",
        "last": config.output.dir / f"{config.output.name}_last.pth",
    }
    torch.manual_seed(config.seed)
    task = task_for(arch, config)
    job = make_job(task, build(arch["name"], **arch["args"]), config, config.train, "train")
    with claim(paths["best"]):
        result = fit(job, resume)
        save_result(result, arch, paths, config, started)
    return paths


def make_job(
    task: Task, model: nn.Module, config: Config, settings: TrainConfig, stage: str
) -> Job:
    """The job of a stage that trains on the ground truth alone."""

    def objective(
        network: nn.Module, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return task.loss(network(task.inputs(batch)), batch), {}

    return Job(
        model=model,
        data=task.training_data,
        objective=objective,
        validate=task.evaluate,
        headline=task.headline,
        settings=settings,
        folder=config.output.runs / f"{config.output.name}_{stage}",
        seed=config.seed,
        device=config.device,
        workers=config.data.workers,
        signature=signature(config, settings),
    )


def signature(config: Config, settings: TrainConfig) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on with."""
    plain = config.plain()
    keep = ("seed", "model", "teacher", "data", "distill")
    fixed = settings.model_dump(mode="json", include={"batch_size", "lr", "betas", "schedule"})
    return {**{key: plain[key] for key in keep}, **fixed}


def save_result(
    result: Result, arch: dict[str, Any], paths: dict[str, Path], config: Config, started: float
) -> None:
    """Write the best and the last weights."""
    for key, params, metrics in (
        ("best", result.best, result.best_metrics),
        ("last", result.last, result.last_metrics),
    ):
        record = make_record(
            "train", config.plain(), metrics=metrics, started=started, device=result.device
        )
        save(paths[key], Artifact(params, arch, record))
