"""`kdp finetune`: a pruned network recovers, and what was removed stays removed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from kdp.artifacts import Artifact, read_parents, save
from kdp.config import Config
from kdp.distillation.objective import compares_widths
from kdp.log import log
from kdp.measure.complexity import count_parameters
from kdp.models.loading import load_network
from kdp.pruning.groups import Group, Masks
from kdp.pruning.identity import MasksIdentity, check_removed, masked_extra, masks_for
from kdp.pruning.masks import zero_removed
from kdp.pruning.rebuild import full_params
from kdp.pruning.rebuild import rebuild as cut
from kdp.stages.costs import Costs, costs_of, deployed_parameters
from kdp.stages.experiments.store import RunLabel
from kdp.stages.paths import check_made, do_nothing
from kdp.stages.prune.latest import latest_masked
from kdp.stages.prune.masks_check import check_masks_fit
from kdp.stages.replacing import TrainingTargets
from kdp.stages.train.job import RunMode, make_job, record_experiment, run_job, stage_record
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import DistillRequest, FinetuneRequest, TrainingRequest
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.training.job import Params
from kdp.training.processes import is_main_process, main_process_lock
from kdp.types import Arch, Provenance


def finetune(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    rerun: bool = False,
    on_ready: Callable[[], None] = do_nothing,
    label: RunLabel | None = None,
    source: Path | None = None,
) -> dict[str, Path]:
    """Train the pruned network as `finetune` and `distill` say (no `distill`: ground truth only).

    Reads the pruned or recovered network, its masks and the teacher; writes the weights of the best
    validation to `{dir}/{name}_finetuned_{loss}.pth`, and in `{runs}/{name}_finetune_{loss}/` the
    checkpoint and the curves.

    Args:
        config: of the chain.
        resume: continue from the checkpoint.
        overwrite: replace whatever is there.
        rerun: resume if the checkpoint fits, replace what an earlier rerun made.
        on_ready: called once the inputs are valid.
        label: of the round of progressive pruning that this belongs to.
        source: network to fine-tune (default: the recovered network, or the pruned one).

    Raises:
        KdpError: a section or a file is missing, files do not belong together or to the
            configuration, one may not be replaced, or whatever the loop raises.
    """
    started, finetuning = time.time(), FinetuneRequest.from_config(config)
    paths = finetuning.training.paths
    source = source or latest_masked(paths)
    pruned = _load_pruned(finetuning, source)
    request = _training_request(finetuning, pruned.task, label)
    costs, student = pruned.costs(request.label.unpruned), pruned.student(request.distill)
    torch.manual_seed(request.seed)
    objective = build_objective(pruned.task, student, request.distill, request.settings.steps)
    job = make_job(request, pruned.task, student, objective, costs)
    if student is pruned.model:
        job.after_step = pruned.zero_removed
    teachers, samples = read_parents(objective.parents), pruned.task.training_samples
    parents = [*read_parents([source, paths.masks]), *teachers]
    targets = TrainingTargets(request, [paths.finetuned], parents, teachers, samples)
    with main_process_lock(paths.finetuned, request.folder):
        mode = RunMode(resume, overwrite, rerun, on_ready)
        result = run_job(job, targets, pruned.task, mode, costs, pruned.note(student))
        if is_main_process():
            record = stage_record(request, result, result.best_metrics, started, parents)
            save(paths.finetuned, pruned.artifact(pruned.full_size(result.best, student), record))
            record_experiment(request, paths.finetuned, pruned.task, result)
    return {"finetuned": paths.finetuned}


def _training_request(
    finetuning: FinetuneRequest, task: Task, label: RunLabel | None
) -> TrainingRequest:
    request = finetuning.training.counted(task.sample_counts["training"], task.task_reduction)
    return replace(request, label=label or request.label)


@dataclass(frozen=True)
class _PrunedNetwork:
    """The network that `kdp prune` wrote, its masks, and their identity."""

    model: nn.Module
    arch: Arch
    task: Task
    groups: list[Group]
    masks: Masks
    identity: MasksIdentity

    def student(self, distill: DistillRequest | None) -> nn.Module:
        """The network to train: without the removed units, which is faster and equivalent.

        Where features are compared that must have the teacher's widths it is the full network
        with zeros.
        """
        if distill and compares_widths(distill.distill):
            return self.model
        return self._small[0]

    def costs(self, unpruned: int | None) -> Costs:
        """Of the network without the removed units; `unpruned`: see `costs_of`."""
        return costs_of(self._small[1], self.task, unpruned or deployed_parameters(self.arch))

    @cached_property
    def _small(self) -> tuple[nn.Module, Arch]:
        return cut(self.model, self.arch, self.groups, self.masks)

    def note(self, student: nn.Module) -> str:
        """That the file has more parameters than the network that is trained, where it has."""
        if student is self.model:
            return ""
        return f"; {count_parameters(self.model):,} in the file, where removed units are zero"

    def zero_removed(self, network: nn.Module, step: int) -> None:
        """Keep the removed units of the full network at zero after a step."""
        zero_removed(network, self.groups, self.masks)

    def artifact(self, params: Params, record: Provenance) -> Artifact:
        """The file of the fine-tuned network; `full_size` gives the weights."""
        extra = masked_extra(self.model, self.groups, self.masks, self.identity)
        return Artifact(params, self.arch, record, extra)

    def full_size(self, params: Params, student: nn.Module) -> Params:
        """The student's weights in their places in the full network, removed units zero.

        Raises:
            KdpError: a removed unit is not zero.
        """
        if student is not self.model:
            params = full_params(params, self.model.state_dict(), self.groups, self.masks)
        self.model.load_state_dict(params)
        check_removed(self.model, self.groups, self.masks, "the fine-tuned network")
        return params


def _load_pruned(request: FinetuneRequest, source: Path) -> _PrunedNetwork:
    """A masked network, once it is known to belong to the masks and the configuration."""
    paths = request.training.paths
    check_made(paths.masks, "prune")
    check_masks_fit(request.masks, paths.masks)
    if source == paths.recovered:
        log.info(f"Fine-tuning the recovered network {source}")
    model, arch, artifact = load_network(source)
    task = task_for(arch, request.training.config)
    groups = task.groups(model)
    masks, identity = masks_for(source, model, artifact, paths.masks, groups)
    return _PrunedNetwork(model, arch, task, groups, masks, identity)
