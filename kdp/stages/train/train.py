"""`kdp train`: a network from scratch or given weights, on its ground truth and from teachers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from kdp.artifacts import Artifact, read_parents, save
from kdp.config import Config, ModelConfig
from kdp.errors import KdpError
from kdp.finite import first_nonfinite
from kdp.models import PRETRAINED, build
from kdp.models.loading import load_start
from kdp.stages.costs import costs_of
from kdp.stages.paths import do_nothing
from kdp.stages.replacing import TrainingTargets
from kdp.stages.train.dynamic import (
    DynamicTraining,
    add_dynamic,
    prune_while_training,
    pruned_artifacts,
)
from kdp.stages.train.job import (
    RunMode,
    make_job,
    record_experiment,
    run_job,
    stage_record,
    weight_files,
)
from kdp.stages.train.limits import check_limits
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import TrainRequest
from kdp.tasks import new_arch, task_for
from kdp.training.job import TrainingResult
from kdp.training.processes import is_main_process, main_process_lock
from kdp.types import Arch, Parent


def train(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    rerun: bool = False,
    on_ready: Callable[[], None] = do_nothing,
) -> dict[str, Path]:
    """Train `model` as `train` says, from teachers too where there is `distill`.

    Writes `{dir}/{name}.pth` (the best validation) and `{dir}/{name}_last.pth`, and in
    `{runs}/{name}_train/` the checkpoint and the curves. With `dynamic` the network is pruned
    meanwhile: removed units are zero in both files, and the masks are written beside them.

    Args:
        config: of the chain.
        resume: continue from the checkpoint.
        overwrite: replace whatever is there.
        rerun: resume if the checkpoint fits, replace what an earlier rerun made.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: a section is missing, the network exceeds `limits` or cannot be measured, a file
            may not be replaced, or whatever the loop raises.
    """
    started, request = time.time(), TrainRequest.from_config(config)
    files = request.files
    torch.manual_seed(request.training.seed)
    model, arch = starting_point(request.model, config)
    task = task_for(arch, config)
    costs = costs_of(arch, task)
    if request.limits:
        check_limits(request.limits, costs, arch.name)
    request = request.counted(task.sample_counts["training"], task.task_reduction)
    training = request.training
    objective = build_objective(task, model, training.distill, training.settings.steps)
    dynamic = add_dynamic(request.dynamic, task, model, arch) if request.dynamic else None
    parents = read_parents([*weight_files(request.model), *objective.parents])
    job = make_job(training, task, model, objective, costs)
    if dynamic:
        prune_while_training(job, dynamic)
    written = list(files.values())
    targets = TrainingTargets(training, written, parents, parents, task.training_samples)
    with main_process_lock(files["best"], training.folder):
        mode = RunMode(resume, overwrite, rerun, on_ready)
        result = run_job(job, targets, task, mode, costs)
        if is_main_process():
            _save(request, result, arch, dynamic, started, parents)
            record_experiment(training, files["best"], task, result)
            return files
    return {}


def starting_point(section: ModelConfig, config: Config) -> tuple[nn.Module, Arch]:
    """The network before its first step: new, or with the weights of a file.

    Args:
        section: `model`.
        config: the whole configuration, which may describe the input of a new network.

    Raises:
        KdpError: the file, or the folder of another program, does not hold what `model` says.
    """
    if section.weights is not None and not section.weights.is_dir():
        return load_start(section.weights, section.arch)
    arch = new_arch(section.arch, config)
    if section.weights is None:
        return build(arch.name, **arch.args), arch
    return _pretrained(arch, section.weights)


def _pretrained(arch: Arch, folder: Path) -> tuple[nn.Module, Arch]:
    if arch.name not in PRETRAINED:
        raise KdpError(f"{folder} is a folder; {arch.name!r} starts from a file")
    model, args = PRETRAINED[arch.name](folder, arch.args)
    if name := first_nonfinite(model.state_dict()):
        raise KdpError(f"{folder} holds values that are not finite (NaN or infinite), in {name}")
    return model, Arch(arch.name, args)


def _save(
    request: TrainRequest,
    result: TrainingResult,
    arch: Arch,
    dynamic: DynamicTraining | None,
    started: float,
    parents: Sequence[Parent],
) -> None:
    """Write the files once all of them are made, so that a missed budget leaves the old ones."""
    artifacts: dict[str, Artifact] = {}
    for key, params, metrics in (
        ("best", result.best, result.best_metrics),
        ("last", result.last, result.last_metrics),
    ):
        record = stage_record(request.training, result, metrics, started, parents)
        artifacts[key] = Artifact(params, arch, record)
    if dynamic:
        artifacts = pruned_artifacts(dynamic, artifacts["best"], artifacts["last"])
    for key, artifact in artifacts.items():
        save(request.files[key], artifact)
