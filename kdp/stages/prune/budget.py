"""The budget of pruning: what a width costs, and whether a plan keeps within its MACs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from kdp.config import PruneConfig
from kdp.errors import KdpError, join_names
from kdp.log import log
from kdp.measure.complexity import count_macs_of, macs_by_module
from kdp.models import build_on_meta
from kdp.pruning.counting import shape_mac_counter
from kdp.pruning.groups import Group
from kdp.pruning.knapsack import MacCounter
from kdp.pruning.rebuild import smaller_arch
from kdp.pruning.search import PruningPlan
from kdp.tasks.base import ExampleTask
from kdp.types import Arch


def macs_by_width(task: ExampleTask, arch: Arch, groups: list[Group]) -> MacCounter:
    """A counter of the MACs with some groups narrowed; groups that are not named keep all units.

    The real counter builds each narrowed network, and caches the result. A counter from shapes
    replaces it where both agree on the full network and on two narrowed ones.
    """
    example = task.example(task.input_size)
    full = {group.name: group.units for group in groups}
    # A network may leave out more than the units of an empty group: attention with its norm.
    may_be_empty = {group.name for group in groups if group.min_units == 0}

    @cache
    def counted(kept: tuple[int, ...]) -> int:
        widths = dict(zip(full, kept, strict=True))
        return count_macs_of(smaller_arch(arch, groups, widths), example)

    def count(kept: Mapping[str, int]) -> int:
        return counted(tuple({**full, **kept}.values()))

    dense = macs_by_module(arch, example)
    quick = shape_mac_counter(build_on_meta(arch), groups, dense)
    if any(quick(kept) != count(kept) for kept in (_half(groups), _uneven(groups))):
        return count

    def count_by_shapes(kept: Mapping[str, int]) -> int:
        emptied = any(kept.get(name) == 0 for name in may_be_empty)
        return count(kept) if emptied else quick(kept)

    return count_by_shapes


def _half(groups: list[Group]) -> dict[str, int]:
    return {group.name: max(group.units // 2, 1) for group in groups}


def _uneven(groups: list[Group]) -> dict[str, int]:
    """Other shares of each group, so that errors of two groups do not cancel out."""
    return {group.name: 1 + 5 * i % group.units for i, group in enumerate(groups)}


def check_kinds(groups: list[Group], settings: PruneConfig, later_round: bool = False) -> None:
    """Check that the limits name existing kinds of groups.

    Args:
        groups: all groups of the network.
        settings: the limits.
        later_round: earlier rounds may have removed all groups of a kind; a line says so. That the
            kinds exist was checked in the first round, which has the same limits.

    Raises:
        KdpError: a kind does not exist.
    """
    kinds = {group.kind for group in groups}
    named = {*settings.min_units, *settings.round_to, *(settings.kinds or ())}
    missing = sorted(named - kinds)
    if missing and later_round:
        log.info(f"earlier rounds have removed all {join_names(missing)}")
        return
    for kind in missing:
        raise KdpError(f"no kind of group is called {kind!r}; available: {sorted(kinds)}")


def misses_budget(macs: int, dense: int, mac_constraint: float, largest_step: float) -> bool:
    """True if the MACs exceed the budget or undershoot it by more than one unit.

    Args:
        macs: of the masked network.
        dense: of the full network.
        mac_constraint: budget as a share of `dense`.
        largest_step: MACs of the most expensive unit, or of `round_to` of them.
    """
    budget = mac_constraint * dense
    return not budget - largest_step <= macs <= budget


def check_plan(plan: PruningPlan, mac_constraint: float, largest_step: float) -> None:
    """Make sure that a plan, measured as rebuilt, meets the budget.

    Raises:
        KdpError: it does not; see `misses_budget`.
    """
    if misses_budget(plan.macs, plan.dense_macs, mac_constraint, largest_step):
        raise KdpError(
            f"the search kept {plan.macs / plan.dense_macs:.4f} of the MACs, which misses "
            f"mac_constraint={mac_constraint} by more than one unit (see min_units, round_to)"
        )
