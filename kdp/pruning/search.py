"""From importance and cost to masks: keep the most importance a budget allows.

Within a group the least important units go first, so the importance that is lost per operation
saved only grows from step to step; taking steps in that order over all groups is the fractional
knapsack optimum, short of it by less than one step.

That holds where costs add up, as those of heads and of hidden neurons do. Channels of convolutions
that follow one another cost less the fewer the others are: there the search goes in stages, and
counts what a unit costs anew in each.
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
    """What a search decided.

    Attributes:
        masks: what stays.
        planned_macs: by the sum of unit costs where they add up, else as `macs`.
        macs: counted for the smaller network.
        dense_macs: counted for the full network.
        kept_importance: kept share of all importance.
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
    count: MacCounter,
    mac_constraint: float,
    limits: Limits,
) -> PruningPlan:
    """`plan`, where something must go.

    Raises:
        KdpError: the budget cannot be reached, or nothing would be removed.
    """
    found = plan_within_budget(groups, scores, costs, count, mac_constraint, limits)
    if found.macs >= found.dense_macs:
        raise KdpError(f"mac_constraint={mac_constraint} removes nothing")
    return found


def plan_within_budget(
    groups: Sequence[Group],
    scores: Scores,
    costs: Mapping[str, float],
    count: MacCounter,
    mac_constraint: float,
    limits: Limits,
) -> PruningPlan:
    """Masks that keep the most importance within `mac_constraint` of the dense MACs.

    Unit costs decide the order; the true count decides how far to go.

    Args:
        groups: what may go.
        scores: importance of their units.
        costs: MACs of a unit of each group in the full network.
        count: of any choice.
        mac_constraint: share of the dense MACs that may stay, 0..1.
        limits: what every group keeps.

    Raises:
        KdpError: the budget cannot be reached.
    """
    steps = ordered_steps(groups, scores, costs, limits)
    dense = count({group.name: group.units for group in groups})
    budget = mac_constraint * dense
    needed = steps_needed(steps, groups, count, budget)
    if costs_are_additive(groups, costs, count):
        kept = kept_after(groups, steps[:needed])
        kept = spend_leftover(kept, steps[:needed], costs, count, budget)
        planned = dense - sum(costs[g.name] * (g.units - kept[g.name]) for g in groups)
    else:
        kept = _in_stages(groups, scores, count, budget, limits)
        planned = count(kept)
    masks = _masks(groups, scores, kept)
    return PruningPlan(masks, planned, count(kept), dense, _kept_share(groups, scores, masks))


def _in_stages(
    groups: Sequence[Group], scores: Scores, count: MacCounter, budget: float, limits: Limits
) -> KeptUnits:
    """What stays where the cost of a unit depends on what else stays.

    In each stage a tenth of the MACs goes, by the costs at its beginning.
    """
    kept = {group.name: group.units for group in groups}
    done: list[PruneStep] = []
    while count(kept) > budget:
        goal = max(budget, 0.9 * count(kept))
        costs = unit_costs(groups, count, kept)
        for step in ordered_steps(groups, scores, costs, limits):
            if count(kept) <= goal:
                break
            if step.before == kept[step.group]:
                kept[step.group] = step.kept
                done.append(step)
    return spend_leftover(kept, done, unit_costs(groups, count, kept), count, budget)


def plan_uniform(
    groups: Sequence[Group],
    scores: Scores,
    count: MacCounter,
    pruning_ratio: float,
    limits: Limits,
) -> PruningPlan:
    """Masks that keep floor((1 - pruning_ratio) * units) of every group, or what limits allow.

    Raises:
        KdpError: nothing would be removed.
    """
    kept = {
        # 100 * (1 - 0.9) is a little less than 10
        g.name: limits.largest_allowed(g, math.floor(g.units * (1 - pruning_ratio) + 1e-9))
        for g in groups
    }
    if all(kept[g.name] == g.units for g in groups):
        raise KdpError(f"pruning_ratio={pruning_ratio} removes nothing")
    full = {group.name: group.units for group in groups}
    masks, macs = _masks(groups, scores, kept), count(kept)
    return PruningPlan(masks, macs, macs, count(full), _kept_share(groups, scores, masks))


def _masks(groups: Sequence[Group], scores: Scores, kept: KeptUnits) -> Masks:
    """Keep the units of highest importance; ties keep the first."""
    masks = {}
    for group in groups:
        order = scores[group.name].argsort(descending=True, stable=True)
        mask = torch.zeros(group.units, dtype=torch.bool)
        mask[order[: kept[group.name]]] = True
        masks[group.name] = mask
    return masks


def _kept_share(groups: Sequence[Group], scores: Scores, masks: Masks) -> float:
    total = sum(float(scores[g.name].sum()) for g in groups)
    kept = sum(float(scores[g.name][masks[g.name]].sum()) for g in groups)
    return kept / total if total else 1.0
