"""Taking units from groups one step at a time: what a step costs, in what order, how far to go."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from kdp.errors import KdpError
from kdp.pruning.groups import Group
from kdp.pruning.importance.base import Scores

KeptUnits = dict[str, int]
MacCounter = Callable[[Mapping[str, int]], int]
"""Multiply-accumulates of the network when each group keeps so many units."""


@dataclass(frozen=True)
class Limits:
    """What the search may not do, per kind of group.

    Attributes:
        min_units: a group keeps at least so many (1 where a kind is not named), or its `least`.
        round_to: a group keeps a multiple of this, or everything (1 where not named).
    """

    min_units: Mapping[str, int]
    round_to: Mapping[str, int]

    def allowed(self, group: Group) -> list[int]:
        """The numbers of units a group may keep, from all of them down."""
        least = min(max(self.min_units.get(group.kind, 1), group.min_units), group.units)
        multiple = self.round_to.get(group.kind, 1)
        below = [n for n in range(group.units - 1, least - 1, -1) if n % multiple == 0]
        return [group.units, *below]

    def largest_allowed(self, group: Group, units: int) -> int:
        """The largest number a group may keep that is no larger, or else the smallest of all."""
        allowed = self.allowed(group)
        return next((number for number in allowed if number <= units), allowed[-1])


@dataclass(frozen=True)
class PruneStep:
    """Taking a group from one allowed number of units to the next lower one."""

    group: str
    before: int
    kept: int
    saved: float
    lost: float

    @property
    def density(self) -> float:
        return self.lost / self.saved if self.saved > 0 else float("inf")


def unit_costs(
    groups: Sequence[Group], count: MacCounter, kept: Mapping[str, int] | None = None
) -> dict[str, float]:
    """MACs that one unit of each group costs: in the full network, or where so many are left.

    The last one that is left counts as nothing: there may be no network without it.
    """
    now = dict(kept or {group.name: group.units for group in groups})
    macs, least = count(now), 1 if kept else 0
    return {
        g.name: float(macs - count({**now, g.name: max(now[g.name] - 1, least)})) for g in groups
    }


def costs_are_additive(
    groups: Sequence[Group], costs: Mapping[str, float], count: MacCounter
) -> bool:
    """Whether units cost nearly the same whatever else is left: half of all, within 5 %."""
    half = {group.name: max(group.units // 2, 1) for group in groups}
    dense = count({group.name: group.units for group in groups})
    expected = dense - sum(costs[g.name] * (g.units - half[g.name]) for g in groups)
    return abs(count(half) - expected) <= 0.05 * dense


def kept_after(groups: Sequence[Group], steps: Sequence[PruneStep]) -> KeptUnits:
    """What each group keeps after these steps."""
    return {group.name: group.units for group in groups} | {s.group: s.kept for s in steps}


def ordered_steps(
    groups: Sequence[Group], scores: Scores, costs: Mapping[str, float], limits: Limits
) -> list[PruneStep]:
    """All steps by the importance they lose per MAC; within a group from the top down."""
    chains = [_steps(group, scores[group.name], costs[group.name], limits) for group in groups]
    ranked = [
        (step.density, i, j, step) for i, chain in enumerate(chains) for j, step in enumerate(chain)
    ]
    return [step for *_, step in sorted(ranked, key=lambda item: item[:3])]


def _steps(group: Group, scores: torch.Tensor, cost: float, limits: Limits) -> list[PruneStep]:
    ascending = scores.double().sort(stable=True).values
    lost = torch.cat([ascending.new_zeros(1), ascending.cumsum(0)])
    allowed = limits.allowed(group)
    steps = []
    for high, low in pairwise(allowed):
        gone, more = group.units - high, group.units - low
        steps.append(
            PruneStep(group.name, high, low, cost * (high - low), float(lost[more] - lost[gone]))
        )
    return steps


def steps_needed(
    steps: Sequence[PruneStep], groups: Sequence[Group], count: MacCounter, budget: float
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


def spend_leftover(
    kept: KeptUnits,
    taken: Sequence[PruneStep],
    costs: Mapping[str, float],
    count: MacCounter,
    budget: float,
) -> KeptUnits:
    """`_fill` by the sum of unit costs; by counting every step only where that sum errs."""
    base = count(kept)

    def estimate(now: Mapping[str, int]) -> int:
        return base + round(sum(costs[name] * (now[name] - kept[name]) for name in kept))

    quick = _fill(kept, taken, estimate, budget)
    return quick if count(quick) <= budget else _fill(kept, taken, count, budget)


def _fill(
    kept: KeptUnits, taken: Sequence[PruneStep], count: MacCounter, budget: float
) -> KeptUnits:
    """Undo steps that fit into what is left of the budget, the most important first.

    Only the last step taken in a group can be undone at any time.
    """
    chains: dict[str, list[PruneStep]] = {}
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
