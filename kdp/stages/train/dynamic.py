"""Pruning inside `kdp train`: gates on the student, and the files that the chain goes on with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.config import Config, DynamicConfig
from kdp.errors import KdpError
from kdp.measure.complexity import COUNTER
from kdp.models import build
from kdp.pruning.dynamic import DynamicPruner
from kdp.pruning.gates import add_gates, fold_gates
from kdp.pruning.groups import Group, Masks, full_masks
from kdp.pruning.knapsack import Limits, MacCounter, unit_costs
from kdp.pruning.masks import kept_units, zero_removed
from kdp.stages.prune.prune import check_kinds, macs_by_width, missed
from kdp.stages.prune.score_cache import prunable
from kdp.tasks.base import PruningTask
from kdp.training.job import Batch, Objective, Params, TrainingJob
from kdp.types import Arch, Provenance


@dataclass(frozen=True)
class Dynamic:
    """A network with gates.

    Attributes:
        arch: of the full network.
        everything: all groups; `pruner.groups` are those with gates.
        pruner: decides.
        count: operations by kept units.
        input_size: (height, width) of the input that `count` is for.
    """

    arch: Arch
    everything: list[Group]
    pruner: DynamicPruner
    count: MacCounter
    input_size: tuple[int, int]

    def plain(self, params: Params) -> tuple[Params, Masks]:
        """Weights without gates, removed units zero, and what stays."""
        plain, masks = fold_gates(params, self.pruner.groups)
        masks = {**full_masks(self.everything), **masks}
        model = build(self.arch.name, **self.arch.args)
        model.load_state_dict(plain)
        zero_removed(model, self.everything, masks)
        return model.state_dict(), masks


def add_dynamic(config: Config, task: PruningTask, model: nn.Module, arch: Arch) -> Dynamic:
    """Put gates on the student, in place.

    Raises:
        KdpError: no budget is given or it cannot be reached, or the settings do not fit.
    """
    settings = section(config)
    assert config.mac_constraint is not None
    everything = task.groups(model)
    check_kinds(everything, config.prune)
    groups = prunable(config, task, model)
    count = macs_by_width(task, arch, everything)
    pruner = DynamicPruner(
        settings,
        model,
        groups,
        add_gates(model, groups),
        unit_costs(groups, count),
        count,
        config.mac_constraint,
        Limits(config.prune.min_units, config.prune.round_to),
    )
    return Dynamic(arch, everything, pruner, count, task.input_size)


def section(config: Config) -> DynamicConfig:
    """The section `dynamic`, checked against the others.

    Raises:
        KdpError: `mac_constraint` is missing, or the training ends before the ramp.
    """
    if config.dynamic is None or config.train is None or config.mac_constraint is None:
        raise KdpError("pruning while training needs `dynamic`, `train` and `mac_constraint`")
    if config.dynamic.end_step > config.train.steps:
        raise KdpError(
            f"dynamic.end_step ({config.dynamic.end_step}) is after the last of the "
            f"{config.train.steps} steps"
        )
    return config.dynamic


def prune_while_training(job: TrainingJob, dynamic: Dynamic) -> None:
    """Let a job prune: the loss on the gates, the choice after a step, the best one's start."""
    settings, pruner = dynamic.pruner.settings, dynamic.pruner
    job.objective = _with_gates(job.objective, pruner)
    job.after_step = lambda model, step: pruner.after_step(step)
    job.best_from_step = settings.end_step


def _with_gates(objective: Objective, pruner: DynamicPruner) -> Objective:
    weight = pruner.settings.loss.weight if pruner.settings.loss else 0.0

    def call(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = objective(model, batch, step)
        kept = torch.tensor(pruner.mac_share())
        if not weight:
            return total, {**parts, "macs_kept": kept}
        gates = pruner.sparsity_loss()
        return total + weight * gates, {**parts, "gates": gates, "macs_kept": kept}

    return call


def check_budget(config: Config, dynamic: Dynamic, masks: Masks) -> None:
    """Make sure that what stays is what the budget allows, and no less.

    Raises:
        KdpError: it is missed by more than one unit.
    """
    pruner, costs = dynamic.pruner, dynamic.pruner.costs
    macs, dense = _macs(dynamic, masks)
    step = max(costs[g.name] * pruner.limits.round_to.get(g.kind, 1) for g in pruner.groups)
    if missed(macs, dense, pruner.mac_constraint, step):
        raise KdpError(
            f"training kept {macs / dense:.4f} of the MACs, which misses "
            f"mac_constraint={config.mac_constraint} by more than one unit"
        )


def masks_artifact(dynamic: Dynamic, masks: Masks, config: Config, record: Provenance) -> Artifact:
    """The masks as `kdp prune` writes them."""
    macs, dense = _macs(dynamic, masks)
    budget = {
        "mac_constraint": config.mac_constraint,
        "macs": macs,
        "dense_macs": dense,
        "kept_units": kept_units(masks),
        "counter": COUNTER,
        "input_size": list(dynamic.input_size),
    }
    extra = {"masks": masks, "scores": dynamic.pruner.scores, "budget": budget}
    return Artifact({}, record=record, extra={**extra, "arch_full": dynamic.arch.plain()})


def _macs(dynamic: Dynamic, masks: Masks) -> tuple[int, int]:
    """Operations of what stays, and of everything."""
    full = {group.name: group.units for group in dynamic.everything}
    return dynamic.count(kept_units(masks)), dynamic.count(full)
