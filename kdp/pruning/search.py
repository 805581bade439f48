"""From importance and costs to masks: keep the most importance that a budget allows.

Removing units in ascending order of importance per MAC, over all groups, solves the fractional
knapsack problem (Dantzig 1957): the result is optimal but for less than one step. That holds
where costs add up, as those of attention heads and hidden neurons do. A channel of consecutive
convolutions costs less the fewer channels the neighbours keep; there the search goes in stages
and recounts unit costs at the beginning of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from kdp.errors import KdpError
from kdp.pruning.groups import Group, Masks
from kdp.pruning.importance.base import Scores
from kdp.pruning.knapsack import (
    KeptUnits,
    Limits,
    MacCounter,
    PruneStep,
    costs_are_additive,
    kept_after,
    ordered_steps,
    spend_leftover,
    steps_needed,
    unit_costs,
)


@dataclass(frozen=True)
class PruningPlan:
    """The result of a search.

    Attributes:
        masks: which units stay.
        planned_macs: MACs by the sum of unit costs where those add up, otherwise as `macs`.
        macs: counted for the smaller network.
        dense_macs: counted for the full network.
        kept_importance: share of the summed importance that stays, 0..1.
    """

    masks: Masks
    planned_macs: float
    macs: int
    dense_macs: int
    kept_importance: float


def plan_pruning(
    groups: Sequence[Group],
    scores: Scores,
    costs: Mapping[str, float],
    count_macs: MacCounter,
    mac_constraint: float,
    limits: Limits,
) -> PruningPlan:
    """`plan_within_budget` for a budget that must remove something.

    Raises:
        KdpError: the budget cannot be reached, or it removes nothing.
    """
    plan = plan_within_budget(groups, scores, costs, count_macs, mac_constraint, limits)
    if plan.macs >= plan.dense_macs:
        raise KdpError(f"mac_constraint={mac_constraint} removes nothing; lower it")
    return plan


def plan_within_budget(
    groups: Sequence[Group],
    scores: Scores,
    costs: Mapping[str, float],
    count_macs: MacCounter,
    mac_constraint: float,
    limits: Limits,
) -> PruningPlan:
    """Masks that keep the most importance within a share of the dense MACs.

    Unit costs decide the order of the steps; the counted MACs decide how many are taken.

    Args:
        groups: the prunable groups.
        scores: importance of their units.
        costs: MACs of one unit of each group in the full network.
        count_macs: counts any choice of kept units.
        mac_constraint: share of the dense MACs that may stay, 0..1.
        limits: fewest units and rounding, by kind of group.

    Raises:
        KdpError: the budget cannot be reached.
    """
    steps = ordered_steps(groups, scores, costs, limits)
    dense = count_macs({group.name: group.units for group in groups})
    budget = mac_constraint * dense
    # Called in both cases: it raises when even all steps together do not reach the budget, where
    # the loop in `_keep_in_stages` would never end.
    number = steps_needed(steps, groups, count_macs, budget)
    if costs_are_additive(groups, costs, count_macs):
        kept = kept_after(groups, steps[:number])
        kept = spend_leftover(kept, steps[:number], costs, count_macs, budget)
        planned = dense - sum(costs[g.name] * (g.units - kept[g.name]) for g in groups)
    else:
        kept = _keep_in_stages(groups, scores, count_macs, budget, limits)
        planned = count_macs(kept)
    masks = _masks(groups, scores, kept)
    share = _kept_share(groups, scores, masks)
    return PruningPlan(masks, planned, count_macs(kept), dense, share)


def _keep_in_stages(
    groups: Sequence[Group],
    scores: Scores,
    count_macs: MacCounter,
    budget: float,
    limits: Limits,
) -> KeptUnits:
    """Kept units where the cost of a unit depends on which others are kept.

    Each stage removes a tenth of the remaining MACs by the unit costs at its beginning.
    """
    kept = {group.name: group.units for group in groups}
    taken: list[PruneStep] = []
    while count_macs(kept) > budget:
        goal = max(budget, 0.9 * count_macs(kept))
        costs = unit_costs(groups, count_macs, kept)
        for step in ordered_steps(groups, scores, costs, limits):
            if count_macs(kept) <= goal:
                break
            # The list starts at full groups; steps of earlier stages are skipped.
            if step.units_before == kept[step.group]:
                kept[step.group] = step.units_after
                taken.append(step)
    final_costs = unit_costs(groups, count_macs, kept)
    return spend_leftover(kept, taken, final_costs, count_macs, budget)


def plan_uniform(
    groups: Sequence[Group],
    scores: Scores,
    count_macs: MacCounter,
    pruning_ratio: float,
    limits: Limits,
) -> PruningPlan:
    """Masks that remove the same share of every group, as far as limits allow.

    A group keeps floor((1 - pruning_ratio) * units), rounded down to an allowed number.

    Args:
        groups: the prunable groups.
        scores: importance of their units.
        count_macs: counts any choice of kept units.
        pruning_ratio: share of the units to remove, 0..1.
        limits: fewest units and rounding, by kind of group.

    Raises:
        KdpError: nothing would be removed.
    """
    kept = {
        # In floating point 100 * (1 - 0.9) is slightly less than 10, and would floor to 9.
        g.name: limits.largest_allowed(g, math.floor(g.units * (1 - pruning_ratio) + 1e-9))
        for g in groups
    }
    if all(kept[g.name] == g.units for g in groups):
        raise KdpError(f"pruning_ratio={pruning_ratio} removes nothing; raise it")
    full = {group.name: group.units for group in groups}
    masks, macs = _masks(groups, scores, kept), count_macs(kept)
    return PruningPlan(masks, macs, macs, count_macs(full), _kept_share(groups, scores, masks))


def _masks(groups: Sequence[Group], scores: Scores, kept: KeptUnits) -> Masks:
    """Masks that keep the most important units; of equal scores the first units stay."""
    masks = {}
    for group in groups:
        # Stable, or equal scores would give other masks on another device or version of torch.
        order = scores[group.name].argsort(descending=True, stable=True)
        mask = torch.zeros(group.units, dtype=torch.bool)
        mask[order[: kept[group.name]]] = True
        masks[group.name] = mask
    return masks


def _kept_share(groups: Sequence[Group], scores: Scores, masks: Masks) -> float:
    """Share of the summed importance that the masks keep."""
    total = sum(float(scores[g.name].sum()) for g in groups)
    kept = sum(float(scores[g.name][masks[g.name]].sum()) for g in groups)
    return kept / total if total else 1.0
