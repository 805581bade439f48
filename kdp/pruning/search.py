"""From importance and cost to masks: keep the most importance a budget allows.

Within a group the least important units go first, so the importance that is lost per operation
saved only grows from step to step; taking steps in that order over all groups is the fractional
knapsack optimum, short of it by less than one step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from kdp.errors import KdpError
from kdp.pruning.groups import Group, Masks
from kdp.pruning.importance.base import Scores

Kept = dict[str, int]
Count = Callable[[Mapping[str, int]], int]
"""Multiply-accumulates of the network when each group keeps so many units."""


@dataclass(frozen=True)
class Limits:
    """What the search may not do, per kind of group.

    Attributes:
        min_units: a group keeps at least so many (1 where a kind is not named).
        round_to: a group keeps a multiple of this, or everything (1 where not named).
    """

    min_units: Mapping[str, int]
    round_to: Mapping[str, int]

    def allowed(self, group: Group) -> list[int]:
        """The numbers of units a group may keep, from all of them down."""
        least = min(self.min_units.get(group.kind, 1), group.units)
        multiple = self.round_to.get(group.kind, 1)
        below = [n for n in range(group.units - 1, least - 1, -1) if n % multiple == 0]
        return [group.units, *below]


@dataclass(frozen=True)
class Plan:
    """What a search decided.

    Attributes:
        masks: what stays.
        planned_macs: by the sum of unit costs.
        macs: counted for the smaller network.
        dense_macs: counted for the full network.
        importance: kept share of all importance.
    """

    masks: Masks
    planned_macs: float
    macs: int
    dense_macs: int
    importance: float


@dataclass(frozen=True)
class _Step:
    """Taking a group from one allowed number of units to the next lower one."""

    group: str
    before: int
    kept: int
    saved: float
    lost: float

    @property
    def density(self) -> float:
        return self.lost / self.saved if self.saved > 0 else float("inf")


def unit_costs(groups: Sequence[Group], count: Count) -> dict[str, float]:
    """MACs that one unit of each group costs in the full network."""
    full = {group.name: group.units for group in groups}
    dense = count(full)
    return {g.name: float(dense - count({**full, g.name: g.units - 1})) for g in groups}


def search(
    groups: Sequence[Group],
    scores: Scores,
    costs: Mapping[str, float],
    count: Count,
    mac_constraint: float,
    limits: Limits,
) -> Plan:
    """`plan`, where something must go.

    Raises:
        KdpError: the budget cannot be reached, or nothing would be removed.
    """
    found = plan(groups, scores, costs, count, mac_constraint, limits)
    if found.macs >= found.dense_macs:
        raise KdpError(f"mac_constraint={mac_constraint} removes nothing")
    return found


def plan(
    groups: Sequence[Group],
    scores: Scores,
    costs: Mapping[str, float],
    count: Count,
    mac_constraint: float,
    limits: Limits,
) -> Plan:
    """Masks that keep the most importance within `mac_constraint` of the dense MACs.

    Unit costs decide the order; the true count decides how far to go, so that costs which change
    as other groups shrink are taken as they are.

    Raises:
        KdpError: the budget cannot be reached.
    """
    steps = _ordered_steps(groups, scores, costs, limits)
    kept = {group.name: group.units for group in groups}
    dense = count(kept)
    budget = mac_constraint * dense
    needed = _steps_needed(steps, groups, count, budget)
    for step in steps[:needed]:
        kept[step.group] = step.kept
    kept = _filled(kept, steps[:needed], costs, count, budget)
    masks = _masks(groups, scores, kept)
    macs = count(kept)
    planned = dense - sum(costs[g.name] * (g.units - kept[g.name]) for g in groups)
    return Plan(masks, planned, macs, dense, _kept_share(groups, scores, masks))


def uniform(
    groups: Sequence[Group],
    scores: Scores,
    costs: Mapping[str, float],
    count: Count,
    pruning_ratio: float,
) -> Plan:
    """Masks that keep floor((1 - pruning_ratio) * units) of every group, one at least.

    Raises:
        KdpError: nothing would be removed.
    """
    kept = {g.name: max(1, int(g.units * (1 - pruning_ratio))) for g in groups}
    if all(kept[g.name] == g.units for g in groups):
        raise KdpError(f"pruning_ratio={pruning_ratio} removes nothing")
    full = {group.name: group.units for group in groups}
    masks, dense = _masks(groups, scores, kept), count(full)
    planned = dense - sum(costs[g.name] * (g.units - kept[g.name]) for g in groups)
    return Plan(masks, planned, count(kept), dense, _kept_share(groups, scores, masks))


def _ordered_steps(
    groups: Sequence[Group], scores: Scores, costs: Mapping[str, float], limits: Limits
) -> list[_Step]:
    """All steps by the importance they lose per MAC; within a group from the top down."""
    chains = [_steps(group, scores[group.name], costs[group.name], limits) for group in groups]
    ranked = [
        (step.density, i, j, step) for i, chain in enumerate(chains) for j, step in enumerate(chain)
    ]
    return [step for *_, step in sorted(ranked, key=lambda item: item[:3])]


def _steps(group: Group, scores: torch.Tensor, cost: float, limits: Limits) -> list[_Step]:
    ascending = scores.double().sort(stable=True).values
    lost = torch.cat([ascending.new_zeros(1), ascending.cumsum(0)])
    allowed = limits.allowed(group)
    steps = []
    for high, low in pairwise(allowed):
        gone, more = group.units - high, group.units - low
        steps.append(
            _Step(group.name, high, low, cost * (high - low), float(lost[more] - lost[gone]))
        )
    return steps


def _steps_needed(
    steps: Sequence[_Step], groups: Sequence[Group], count: Count, budget: float
) -> int:
    """The fewest first steps after which the true count is within the budget.

    Where costs add up exactly the sum of the steps says it; where they do not, bisection does.
    """
    full = {group.name: group.units for group in groups}

    def macs(number: int) -> int:
        return count({**full, **{step.group: step.kept for step in steps[:number]}})

    sums = list(accumulate((step.saved for step in steps), initial=0.0))
    need = macs(0) - budget
    if sums[-1] >= need:
        guess = bisect_left(sums, need)
        if macs(guess) == macs(0) - sums[guess]:
            return guess
    if macs(len(steps)) > budget:
        raise KdpError(
            f"mac_constraint={budget / macs(0):.3g} cannot be reached: the least that min_units "
            f"and the parts that are not pruned allow is {macs(len(steps)) / macs(0):.3g}"
        )
    return bisect_left(range(len(steps)), True, key=lambda number: macs(number) <= budget)


def _filled(
    kept: Kept, taken: Sequence[_Step], costs: Mapping[str, float], count: Count, budget: float
) -> Kept:
    """`_fill` by the sum of unit costs; by counting every step only where that sum errs."""
    base = count(kept)

    def estimate(now: Mapping[str, int]) -> int:
        return base + round(sum(costs[name] * (now[name] - kept[name]) for name in kept))

    quick = _fill(kept, taken, estimate, budget)
    return quick if count(quick) <= budget else _fill(kept, taken, count, budget)


def _fill(kept: Kept, taken: Sequence[_Step], count: Count, budget: float) -> Kept:
    """Undo steps that fit into what is left of the budget, the most important first.

    Only the last step taken in a group can be undone at any time.
    """
    chains: dict[str, list[_Step]] = {}
    for step in taken:
        chains.setdefault(step.group, []).append(step)
    macs = count(kept)
    while True:
        room = budget - macs
        fitting = [chain[-1] for chain in chains.values() if chain and chain[-1].saved <= room]
        if not fitting:
            return kept
        step = max(fitting, key=lambda s: s.lost)
        trial = {**kept, step.group: step.before}
        counted = count(trial)
        if counted <= budget:
            kept, macs = trial, counted
            chains[step.group].pop()
        else:
            chains[step.group].clear()


def _masks(groups: Sequence[Group], scores: Scores, kept: Kept) -> Masks:
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
