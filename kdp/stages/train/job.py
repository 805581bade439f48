"""What `kdp train` and `kdp finetune` share: the job, what identifies it, and its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from kdp.artifacts import make_record
from kdp.config import ModelConfig
from kdp.data.content import check_disjoint
from kdp.files import check_writable, write_atomic
from kdp.models.loading import load_network
from kdp.serialize import json_text
from kdp.stages.costs import Costs
from kdp.stages.experiments.store import store_result
from kdp.stages.header import log_header
from kdp.stages.paths import do_nothing
from kdp.stages.replacing import COMPLEXITY, TrainingTargets
from kdp.stages.train.objective import TrainingObjective
from kdp.stages.train.request import TrainingRequest
from kdp.tasks.base import Task
from kdp.training.job import TrackedRun, TrainingJob, TrainingResult
from kdp.training.loop import fit
from kdp.training.processes import is_main_process
from kdp.types import Parent, Provenance


def make_job(
    request: TrainingRequest,
    task: Task,
    model: nn.Module,
    objective: TrainingObjective,
    costs: Costs,
) -> TrainingJob:
    """The job of a stage that trains.

    Args:
        request: of the stage.
        task: gives the data and the validation.
        model: the network to train.
        objective: the loss, and the samples it is computed on.
        costs: of the network.

    Raises:
        KdpError: an evaluation set is missing or shares samples with the training data, a sample
            cannot be used, or experiments cannot be written.
    """
    check_disjoint(task.training_samples, task.evaluation_sets)
    # Read before the run replaces anything; the loop gets the same data set again.
    data = cache(objective.data)
    _ = data(request.settings.steps * request.settings.batch_size)[0]
    if request.experiment:
        check_writable(request.experiment.folder)
    has_test = any(section.at_end for section in request.config.evaluation.values())
    return TrainingJob(
        model=model,
        data=data,
        objective=objective.objective,
        validate=task.validate,
        evaluate_at_end=task.evaluate_at_end if has_test else None,
        primary_metric=task.primary_metric,
        headline_metrics=task.headline_metrics,
        settings=request.settings,
        folder=request.folder,
        seed=request.seed,
        device=request.device,
        workers=request.workers,
        running_metrics=objective.running_metrics,
        extra_modules=objective.extra_modules,
        tracked=TrackedRun(
            name=request.label.name,
            config=request.config.plain(),
            numbers={"round": request.label.round or 0, **costs.numbers},
        ),
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
    job: TrainingJob,
    targets: TrainingTargets,
    task: Task,
    mode: RunMode,
    costs: Costs,
    note: str = "",
) -> TrainingResult:
    """Check what the job may replace, record what the network costs, and train.

    Args:
        job: what to train.
        targets: the files that it replaces.
        task: counts the samples.
        mode: how files are treated that exist.
        costs: of the network; they are written before the first step.
        note: see `log_header`.

    Raises:
        KdpError: a file may not be replaced, or whatever the loop raises.
    """
    resume = targets.check(mode.resume, mode.overwrite, mode.rerun)
    targets.start(job, resume)
    mode.on_ready()
    epochs = f" ({job.settings.epochs:g} epochs)" if job.settings.epochs else ""
    steps = f"{job.settings.steps} steps{epochs}"
    title = f"kdp {targets.request.stage}: {targets.files[0].stem}, {steps}"
    written = [*targets.files, job.folder]
    log_header(title, job.device, task.sample_counts, job.model, written, note, costs)
    if is_main_process():
        write_atomic(job.folder / COMPLEXITY, json_text(costs.plain()).encode())
    return fit(job, resume)


def weight_files(model: ModelConfig) -> list[Path]:
    """The file that a training starts from, if any."""
    if model.weights is None:
        return []
    return [model.weights / "model.safetensors" if model.weights.is_dir() else model.weights]


def stage_record(
    request: TrainingRequest,
    result: TrainingResult,
    metrics: Mapping[str, Any],
    started: float,
    parents: Sequence[Parent],
) -> Provenance:
    """Provenance of a file that a training stage writes."""
    return make_record(
        request.stage,
        request.config.plain(),
        parents,
        metrics=metrics,
        started=started,
        device=result.device,
        training=request.duration,
    )


def record_experiment(
    request: TrainingRequest, path: Path, task: Task, result: TrainingResult
) -> None:
    """Record the network of a file, as others will read it, if the configuration asks for it."""
    if request.experiment is not None:
        network = load_network(path)[0].to(result.device)
        store_result(
            request.experiment,
            request.stage,
            path,
            task,
            network,
            result.best_metrics,
            request.label,
        )
