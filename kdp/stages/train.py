"""`kdp train`: a network from scratch or from given weights, on its ground truth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config, TrainConfig
from kdp.errors import KdpError
from kdp.files import sha256
from kdp.models import build
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.training.job import Job, Objective, Result
from kdp.training.loop import fit
from kdp.training.processes import claim_once, is_main


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
    arch: dict[str, Any] = {"name": config.model.name, "args": config.model.args}
    paths = {
        "best": config.output.dir / f"{config.output.name}.pth",
        "last": config.output.dir / f"{config.output.name}_last.pth",
    }
    torch.manual_seed(config.seed)
    task = task_for(arch, config)
    model = build(arch["name"], **arch["args"])
    job = make_job(task, model, config, config.train, "train", ground_truth(task))
    with claim_once(paths["best"]):
        result = fit(job, resume)
        if is_main():
            _save(result, arch, paths, config, started)
    return paths


def _save(
    result: Result, arch: dict[str, Any], paths: dict[str, Path], config: Config, started: float
) -> None:
    for key, params, metrics in (
        ("best", result.best, result.best_metrics),
        ("last", result.last, result.last_metrics),
    ):
        record = stage_record("train", config, result, metrics, started)
        save(paths[key], Artifact(params, arch, record))


def ground_truth(task: Task) -> Objective:
    """The objective that knows no teacher."""

    def objective(
        network: nn.Module, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return task.loss(network(task.inputs(batch)), batch), {}

    return objective


def make_job(
    task: Task,
    model: nn.Module,
    config: Config,
    settings: TrainConfig,
    stage: str,
    objective: Objective,
    parents: Sequence[Path] = (),
) -> Job:
    """The job of a stage that trains.

    Args:
        task: gives the data and the validation.
        model: what learns.
        config: the whole configuration.
        settings: its section for this stage.
        stage: names the folder of the run.
        objective: what is minimised.
        parents: files the stage starts from; a run resumes only with the same ones.
    """
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
        signature=signature(config, settings, parents),
    )


def signature(
    config: Config, settings: TrainConfig, parents: Sequence[Path] = ()
) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on with.

    Not the number of steps, which may grow, nor what says how often to look.
    """
    plain = config.plain()
    keep = ("seed", "model", "teacher", "data", "distill", "evaluation")
    free = {"steps", "validate_every", "checkpoint_every", "log_every", "trackers"}
    return {
        **{key: plain[key] for key in keep},
        **settings.model_dump(mode="json", exclude=free),
        "parents": [sha256(path) for path in parents],
    }


def stage_record(
    stage: str,
    config: Config,
    result: Result,
    metrics: Mapping[str, Any],
    started: float,
    parents: Sequence[Path] = (),
) -> dict[str, Any]:
    """Provenance of what a training stage writes."""
    return make_record(
        stage, config.plain(), parents, metrics=metrics, started=started, device=result.device
    )
