"""Budgeted pruning as a knapsack: what each step costs, in which order, and how many fit.

A step takes a group from one allowed number of units to the next lower one. It saves MACs and
loses importance; `kdp.pruning.search` chooses the steps for a budget.
"""

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
"""Group name -> number of kept units."""
MacCounter = Callable[[Mapping[str, int]], int]
"""Kept units per group -> MACs of the network that keeps them."""


@dataclass(frozen=True)
class Limits:
    """What every group must keep, by kind of group.

    Attributes:
        min_units: fewest units; 1 for a kind that is not named, and never below the group's own
            `min_units`.
        round_to: a group keeps a multiple of this, or all its units; 1 for a kind not named.
    """

    min_units: Mapping[str, int]
    round_to: Mapping[str, int]

    def allowed(self, group: Group) -> list[int]:
        """The numbers of units a group may keep, in descending order, all units first."""
        fewest = min(max(self.min_units.get(group.kind, 1), group.min_units), group.units)
        multiple = self.round_to.get(group.kind, 1)
        below = [n for n in range(group.units - 1, fewest - 1, -1) if n % multiple == 0]
        return [group.units, *below]

    def largest_allowed(self, group: Group, units: int) -> int:
        """The largest allowed number of at most `units`, or the smallest allowed if none is."""
        allowed = self.allowed(group)
        return next((number for number in allowed if number <= units), allowed[-1])


@dataclass(frozen=True)
class PruneStep:
    """Taking a group from one allowed number of units to the next lower one.

    Attributes:
        group: name of the group.
        units_before: units before the step.
        units_after: units after it.
        macs_saved: MACs that the step saves.
        importance_lost: summed importance of the units that it removes.
    """

    group: str
    units_before: int
    units_after: int
    macs_saved: float
    importance_lost: float

    @property
    def importance_per_mac(self) -> float:
        """Importance lost per MAC saved; infinite where nothing is saved, so that it goes last."""
        return self.importance_lost / self.macs_saved if self.macs_saved > 0 else float("inf")


def unit_costs(
    groups: Sequence[Group], count_macs: MacCounter, kept: Mapping[str, int] | None = None
) -> dict[str, float]:
    """MACs that one unit of each group costs.

    Args:
        groups: the prunable groups.
        count_macs: counts any choice of kept units.
        kept: units kept so far; all if not given. The last unit of a group then costs nothing,
            because the network may not exist without it.
    """
    current = dict(kept or {group.name: group.units for group in groups})
    macs, fewest = count_macs(current), 1 if kept else 0
    return {
        g.name: float(macs - count_macs({**current, g.name: max(current[g.name] - 1, fewest)}))
        for g in groups
    }


def costs_are_additive(
    groups: Sequence[Group], costs: Mapping[str, float], count_macs: MacCounter
) -> bool:
    """True if a unit costs nearly the same whatever else is kept.

    Checked where coupling shows most, with half of every group removed at once: the sum of unit
    costs may be off by 5 % of the dense MACs. Channels of consecutive convolutions fail (their
    cost is a product of two widths), heads and hidden neurons pass.
    """
    half = {group.name: max(group.units // 2, 1) for group in groups}
    dense = count_macs({group.name: group.units for group in groups})
    expected = dense - sum(costs[g.name] * (g.units - half[g.name]) for g in groups)
    return abs(count_macs(half) - expected) <= 0.05 * dense


def kept_after(groups: Sequence[Group], steps: Sequence[PruneStep]) -> KeptUnits:
    """Units that each group keeps after these steps."""
    return {group.name: group.units for group in groups} | {s.group: s.units_after for s in steps}


def ordered_steps(
    groups: Sequence[Group], scores: Scores, costs: Mapping[str, float], limits: Limits
) -> list[PruneStep]:
    """All possible steps, least importance per saved MAC first.

    Within a group the units are sorted by importance, so the ratio never falls from one step to
    the next: the sorted list takes the steps of a group from the top down.
    """
    chains = [
        _group_steps(group, scores[group.name], costs[group.name], limits) for group in groups
    ]
    ranked = [
        (step.importance_per_mac, i, j, step)
        for i, chain in enumerate(chains)
        for j, step in enumerate(chain)
    ]
    # Ties go by group and by position. Position matters: equal scores give equal ratios, and a
    # later step of a group must not be taken before an earlier one.
    return [step for *_, step in sorted(ranked, key=lambda item: item[:3])]


def _group_steps(
    group: Group, scores: torch.Tensor, cost: float, limits: Limits
) -> list[PruneStep]:
    """The steps of one group, from all units down to the fewest allowed."""
    ascending = scores.double().sort(stable=True).values
    lost = torch.cat([ascending.new_zeros(1), ascending.cumsum(0)])  # by number of removed units
    steps = []
    for before, after in pairwise(limits.allowed(group)):
        removed_before, removed_after = group.units - before, group.units - after
        importance = float(lost[removed_after] - lost[removed_before])
        steps.append(PruneStep(group.name, before, after, cost * (before - after), importance))
    return steps


def steps_needed(
    steps: Sequence[PruneStep], groups: Sequence[Group], count_macs: MacCounter, budget: float
) -> int:
    """The fewest leading steps after which the counted MACs are within the budget.

    Args:
        steps: in the order in which they are taken.
        groups: the prunable groups.
        count_macs: counts any choice of kept units; called a few times where costs add up
            exactly, log2(steps) times otherwise.
        budget: MACs.

    Raises:
        KdpError: all steps together do not reach the budget.
    """
    full = {group.name: group.units for group in groups}

    def macs(number: int) -> int:
        return count_macs({**full, **{step.group: step.units_after for step in steps[:number]}})

    saved = list(accumulate((step.macs_saved for step in steps), initial=0.0))
    to_save = macs(0) - budget
    if saved[-1] >= to_save:
        guess = bisect_left(saved, to_save)
        # Where the estimate is exact at the guess, costs add up, and one step fewer saves too
        # little.
        if macs(guess) == macs(0) - saved[guess]:
            return guess
    if macs(len(steps)) > budget:
        raise KdpError(
            f"mac_constraint={budget / macs(0):.3g} cannot be reached: min_units, round_to and the "
            f"layers that are not pruned allow {macs(len(steps)) / macs(0):.3g} at least"
        )
    return bisect_left(range(len(steps)), True, key=lambda number: macs(number) <= budget)


def spend_leftover(
    kept: KeptUnits,
    steps: Sequence[PruneStep],
    costs: Mapping[str, float],
    count_macs: MacCounter,
    budget: float,
) -> KeptUnits:
    """Undo steps as long as the budget allows it.

    Args:
        kept: units kept after `steps`.
        steps: those taken, in order.
        costs: MACs of one unit of each group.
        count_macs: counts any choice of kept units.
        budget: MACs.

    Returns:
        The kept units, within the budget.
    """
    base = count_macs(kept)

    def estimate(current: Mapping[str, int]) -> int:
        return base + round(sum(costs[name] * (current[name] - kept[name]) for name in kept))

    # One exact count may mean a forward pass on the meta device, and there is one trial per undone
    # step. Estimate first; count every trial only if the estimate turns out over the budget.
    estimated = _undo_steps(kept, steps, estimate, budget)
    if count_macs(estimated) <= budget:
        return estimated
    return _undo_steps(kept, steps, count_macs, budget)


def _undo_steps(
    kept: KeptUnits, steps: Sequence[PruneStep], count_macs: MacCounter, budget: float
) -> KeptUnits:
    """Undo the steps that fit into the rest of the budget, most important first."""
    chains: dict[str, list[PruneStep]] = {}
    for step in steps:
        chains.setdefault(step.group, []).append(step)
    macs = count_macs(kept)
    while True:
        leftover = budget - macs
        # Only the last step of a group can be undone: it brings back the most important units.
        last_steps = [chain[-1] for chain in chains.values() if chain]
        fitting = [step for step in last_steps if step.macs_saved <= leftover]
        if not fitting:
            return kept
        step = max(fitting, key=lambda s: s.importance_lost)
        trial = {**kept, step.group: step.units_before}
        trial_macs = count_macs(trial)
        if trial_macs <= budget:
            kept, macs = trial, trial_macs
            chains[step.group].pop()
        else:  # it costs more than its unit cost said; the group's earlier steps are blocked by it
            chains[step.group].clear()
