"""Pruning inside `kdp train`: gates on the student, its budget, and the masks it writes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.errors import KdpError
from kdp.measure.complexity import COUNTER
from kdp.models import build
from kdp.pruning.dynamic import DynamicPruner
from kdp.pruning.gates import add_gates, fold_gates
from kdp.pruning.groups import Group, Masks, full_masks
from kdp.pruning.identity import MasksIdentity, masked_extra, masks_digest, network_digest
from kdp.pruning.knapsack import Limits, MacCounter, unit_costs
from kdp.pruning.masks import kept_units, zero_removed
from kdp.stages.prune.budget import check_kinds, macs_by_width, misses_budget
from kdp.stages.prune.score_cache import prunable
from kdp.stages.train.request import DynamicRequest
from kdp.tasks.base import PruningTask
from kdp.training.job import Batch, Objective, Params, TrainingJob
from kdp.types import Arch, Provenance


@dataclass(frozen=True)
class DynamicTraining:
    """A network that is pruned while it trains.

    Attributes:
        arch: of the full network.
        all_groups: of the network; `pruner.groups` are those with gates.
        pruner: updates the masks.
        count_macs: counts any choice of kept units.
        input_size: (height, width) of the input that MACs are counted for.
    """

    arch: Arch
    all_groups: list[Group]
    pruner: DynamicPruner
    count_macs: MacCounter
    input_size: tuple[int, int]

    def without_gates(self, params: Params) -> tuple[nn.Module, Masks]:
        """The network without gates, with removed units zeroed, and the masks."""
        plain, masks = fold_gates(params, self.pruner.groups)
        masks = {**full_masks(self.all_groups), **masks}
        model = build(self.arch.name, **self.arch.args)
        model.load_state_dict(plain)
        zero_removed(model, self.all_groups, masks)
        return model, masks


def add_dynamic(
    request: DynamicRequest, task: PruningTask, model: nn.Module, arch: Arch
) -> DynamicTraining:
    """Put gates on the student, in place, and set up the pruner.

    Raises:
        KdpError: the budget cannot be reached, or the settings do not fit the network.
    """
    all_groups = task.groups(model)
    check_kinds(all_groups, request.prune)
    groups = prunable(request.prune, task, model)
    count_macs = macs_by_width(task, arch, all_groups)
    pruner = DynamicPruner(
        request.settings,
        model,
        groups,
        add_gates(model, groups),
        unit_costs(groups, count_macs),
        count_macs,
        request.mac_constraint,
        Limits(request.prune.min_units, request.prune.round_to),
    )
    return DynamicTraining(arch, all_groups, pruner, count_macs, task.input_size)


def prune_while_training(job: TrainingJob, dynamic: DynamicTraining) -> None:
    """Make a training job prune: add the sparsity loss, and update masks after each step."""
    settings, pruner = dynamic.pruner.settings, dynamic.pruner
    job.objective = _with_gates(job.objective, pruner)
    job.after_step = lambda model, step: pruner.after_step(step)
    # Weights from before do not keep the budget yet, however good they are.
    job.best_from_step = settings.end_step


def _with_gates(objective: Objective, pruner: DynamicPruner) -> Objective:
    """An objective with the sparsity loss added, and the share of kept MACs among its parts."""
    weight = pruner.settings.loss.weight if pruner.settings.loss else 0.0

    def call(model: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = objective(model, batch, step)
        kept = torch.tensor(pruner.mac_share())
        if not weight:
            return total, {**parts, "macs_kept": kept}
        gates = pruner.sparsity_loss()
        return total + weight * gates, {**parts, "gates": gates, "macs_kept": kept}

    return call


def check_budget(dynamic: DynamicTraining, masks: Masks) -> None:
    """Check that the masks use the budget.

    Raises:
        KdpError: they exceed it, or miss it by more than one unit.
    """
    pruner, costs = dynamic.pruner, dynamic.pruner.costs
    macs, dense = _macs(dynamic, masks)
    step = max(costs[g.name] * pruner.limits.round_to.get(g.kind, 1) for g in pruner.groups)
    if misses_budget(macs, dense, pruner.mac_constraint, step):
        raise KdpError(
            f"training kept {macs / dense:.4f} of the MACs, which misses "
            f"mac_constraint={pruner.mac_constraint} by more than one unit"
        )


def pruned_artifacts(
    dynamic: DynamicTraining, best: Artifact, last: Artifact
) -> dict[str, Artifact]:
    """The files of a training that pruned: both networks without gates, and their masks.

    Args:
        dynamic: the training.
        best, last: its results, with gates.

    Raises:
        KdpError: the masks miss the budget.
    """
    artifacts, network = {}, None
    for key, artifact in (("best", best), ("last", last)):
        model, masks = dynamic.without_gates(artifact.params)
        check_budget(dynamic, masks)
        # No network was there before the masks; the best one stands for the run.
        network = network or network_digest(model.state_dict())
        identity = MasksIdentity(masks_digest(masks), network)
        extra = masked_extra(model, dynamic.all_groups, masks, identity)
        artifacts[key] = replace(artifact, params=model.state_dict(), extra=extra)
    assert last.record is not None
    masks_file = _masks_artifact(dynamic, masks, last.record)
    return {
        **artifacts,
        "masks": replace(masks_file, extra={**masks_file.extra, **identity.plain()}),
    }


def _masks_artifact(dynamic: DynamicTraining, masks: Masks, record: Provenance) -> Artifact:
    """The masks in the format of `kdp prune`."""
    macs, dense = _macs(dynamic, masks)
    budget = {
        "mac_constraint": dynamic.pruner.mac_constraint,
        "macs": macs,
        "dense_macs": dense,
        "kept_units": kept_units(masks),
        "counter": COUNTER,
        "input_size": list(dynamic.input_size),
    }
    extra = {"masks": masks, "scores": dynamic.pruner.scores, "budget": budget}
    return Artifact({}, record=record, extra={**extra, "arch_full": dynamic.arch.plain()})


def _macs(dynamic: DynamicTraining, masks: Masks) -> tuple[int, int]:
    """MACs with the masks, and of the full network."""
    full = {group.name: group.units for group in dynamic.all_groups}
    return dynamic.count_macs(kept_units(masks)), dynamic.count_macs(full)
