"""What `kdp train` and `kdp finetune` share: the job, what identifies it, and its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdp.artifacts import make_record
from kdp.config import Config, ModelConfig, TrainConfig
from kdp.errors import KdpError
from kdp.files import check_writable
from kdp.stages.paths import run_folder
from kdp.stages.train.objective import TrainingObjective
from kdp.tasks.base import Task
from kdp.training.job import TrainingJob, TrainingResult
from kdp.types import Provenance


def make_job(
    task: Task,
    model: nn.Module,
    config: Config,
    settings: TrainConfig,
    stage: str,
    objective: TrainingObjective,
) -> TrainingJob:
    """The job of a stage that trains.

    Args:
        task: gives the data and the validation.
        model: the network to train.
        config: the whole configuration.
        settings: its section for this stage.
        stage: names the folder of the run.
        objective: the loss, and the samples it is computed on.

    Raises:
        KdpError: there is no evaluation set, or a set is missing.
    """
    check_evaluation(config)
    _ = task.evaluation_sets  # reads them, so that a missing set is reported before the first step
    if config.experiments:
        check_writable(config.experiments.folder)
    return TrainingJob(
        model=model,
        data=objective.data,
        objective=objective.objective,
        validate=task.evaluate,
        primary_metric=task.primary_metric,
        headline_metrics=task.headline_metrics,
        settings=settings,
        folder=run_folder(config, stage),
        seed=config.seed,
        device=config.device,
        workers=config.data.workers,
        extra_modules=objective.extra_modules,
    )


def check_evaluation(config: Config) -> None:
    """Make sure that there is a set to pick the best weights by.

    Raises:
        KdpError: there is none.
    """
    if not config.evaluation:
        raise KdpError("training needs an `evaluation` set, to pick the best weights by")


def weight_files(model: ModelConfig) -> list[Path]:
    """The file that a training starts from, if any."""
    if model.weights is None:
        return []
    return [model.weights / "model.safetensors" if model.weights.is_dir() else model.weights]


def stage_record(
    stage: str,
    config: Config,
    result: TrainingResult,
    metrics: Mapping[str, Any],
    started: float,
    parents: Sequence[Path],
) -> Provenance:
    """Provenance of a file that a training stage writes."""
    return make_record(
        stage, config.plain(), parents, metrics=metrics, started=started, device=result.device
    )
