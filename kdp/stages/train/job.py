"""What `kdp train` and `kdp finetune` share: the job, what identifies it, and its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from kdp.artifacts import make_record
from kdp.config import Config, ModelConfig, TrainConfig
from kdp.errors import KdpError
from kdp.files import check_writable
from kdp.stages.header import log_header
from kdp.stages.paths import do_nothing, run_folder
from kdp.stages.replacing import TrainingTargets
from kdp.stages.train.objective import TrainingObjective
from kdp.tasks.base import Task
from kdp.training.job import TrainingJob, TrainingResult
from kdp.training.loop import fit
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


class RunMode(NamedTuple):
    """How a run treats files that exist, and whom it tells that it starts.

    Attributes:
        resume: continue from the checkpoint.
        overwrite: replace whatever exists.
        rerun: resume if the checkpoint fits, replace what an earlier rerun made.
        on_ready: called once the inputs are valid.
    """

    resume: bool
    overwrite: bool
    rerun: bool
    on_ready: Callable[[], None] = do_nothing


def run_job(
    job: TrainingJob, targets: TrainingTargets, task: Task, mode: RunMode
) -> TrainingResult:
    """Check what the job may replace, log the header, and train.

    Raises:
        KdpError: a file may not be replaced, or whatever the loop raises.
    """
    resume = targets.check(mode.resume, mode.overwrite, mode.rerun)
    targets.start(job, resume)
    mode.on_ready()
    title = f"kdp {targets.section}: {targets.files[0].stem}, {job.settings.steps} steps"
    log_header(title, job.device, task.sample_counts, job.model, [*targets.files, job.folder])
    return fit(job, resume)


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
