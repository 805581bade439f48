"""`kdp finetune`: a pruned network recovers, and what was removed stays removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kdp.artifacts import Artifact, save
from kdp.config import Config
from kdp.distillation.objective import compares_widths
from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.pruning.groups import Group, Masks
from kdp.pruning.masks import load_masks, removed_are_zero, zero_removed
from kdp.pruning.rebuild import full_params
from kdp.pruning.rebuild import rebuild as cut
from kdp.stages.experiments.store import store_result
from kdp.stages.header import log_header
from kdp.stages.paths import chain_paths, check_made, do_nothing, loss_label
from kdp.stages.prune.masks_check import DIGEST, check_masks_fit, masks_digest
from kdp.stages.replacing import TrainingTargets
from kdp.stages.train.job import make_job, stage_record
from kdp.stages.train.objective import build_objective
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.training.loop import fit
from kdp.training.processes import is_main_process, main_process_lock
from kdp.types import Arch


def finetune(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    rerun: bool = False,
    on_ready: Callable[[], None] = do_nothing,
) -> dict[str, Path]:
    """Train the pruned network as `finetune` and `distill` say (no `distill`: ground truth only).

    Reads the pruned network, its masks and the teacher; writes the weights of the best validation
    to `{dir}/{name}_finetuned_{loss}.pth`, and in `{runs}/{name}_finetune_{loss}/` the checkpoint
    and the curves.

    Args:
        config: of the chain.
        resume: go on from the checkpoint.
        overwrite: replace whatever is there.
        rerun: resume if the checkpoint fits, replace what an earlier rerun made.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: a section or a file is missing, what decided the masks has changed, the masks are
            those of another network, removed units are not zero, a file may not be replaced, or
            whatever the loop raises.
    """
    if config.finetune is None:
        raise KdpError("kdp finetune needs the section `finetune`")
    started, paths = time.time(), chain_paths(config)
    check_made(paths.pruned, "prune")
    check_made(paths.masks, "prune")
    check_masks_fit(config, paths.masks)
    model, arch, _ = load_network(paths.pruned)
    task = task_for(arch, config)
    groups = task.groups(model)
    masks = load_masks(paths.masks, groups)
    check_removed(model, groups, masks, str(paths.pruned))
    student = _student(config, model, arch, groups, masks)
    torch.manual_seed(config.seed)
    objective = build_objective(task, student, config, config.finetune.steps)
    parents = [paths.pruned, paths.masks, *objective.parents]
    stage = f"finetune_{loss_label(config)}"
    job = make_job(task, student, config, config.finetune, stage, objective)
    if student is model:
        job.after_step = lambda network, step: zero_removed(network, groups, masks)
    targets = TrainingTargets(
        config, "finetune", [paths.finetuned], job.folder, parents, objective.parents
    )
    with main_process_lock(paths.finetuned):
        resume = targets.check(resume, overwrite, rerun)
        targets.start(job, resume)
        on_ready()
        title = f"kdp finetune: {paths.finetuned.stem}, {config.finetune.steps} steps"
        written = [paths.finetuned, job.folder]
        log_header(title, config.device, task.sample_counts, student, written)
        result = fit(job, resume)
        if is_main_process():
            if student is not model:
                best = full_params(result.best, model.state_dict(), groups, masks)
                result = replace(result, best=best)
            model.load_state_dict(result.best)
            check_removed(model, groups, masks, "the fine-tuned network")
            record = stage_record("finetune", config, result, result.best_metrics, started, parents)
            _save(config, task, Artifact(result.best, arch, record, {DIGEST: masks_digest(masks)}))
    return {"finetuned": paths.finetuned}


def _save(config: Config, task: Task, artifact: Artifact) -> None:
    """Write the result, and store it as an experiment from the file as others will read it."""
    path, record = chain_paths(config).finetuned, artifact.record
    save(path, artifact)
    if record is not None:
        network = load_network(path)[0].to(record.device)
        store_result(config, "finetune", path, task, network, record.metrics)


def _student(
    config: Config, model: nn.Module, arch: Arch, groups: list[Group], masks: Masks
) -> nn.Module:
    """The network to train: without the removed units, which is faster and equivalent.

    Where features are compared that must have the teacher's widths it is the full network with
    zeros.
    """
    if config.distill and compares_widths(config.distill):
        return model
    return cut(model, arch, groups, masks)[0]


def check_removed(model: nn.Module, groups: list[Group], masks: Masks, what: str) -> None:
    """Make sure that every removed unit is exactly zero.

    Raises:
        KdpError: one is not.
    """
    if not removed_are_zero(model, groups, masks):
        raise KdpError(
            f"{what} has weights other than zero where the masks remove units: network and masks "
            "are not of one `kdp prune`"
        )
