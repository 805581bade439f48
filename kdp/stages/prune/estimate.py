"""How long measuring importance will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdp.pruning.groups import Group
from kdp.pruning.importance.base import UnitScorer

SAMPLED_GROUPS = 4
"""Groups of each kind that are timed."""
FAST, BATCH = 0.1, 16
"""A unit that takes less than so many seconds is timed again in a batch of so many units."""


def scoring_seconds(score: UnitScorer, groups: Sequence[Group]) -> float:
    """A rough estimate of the time that scoring every unit takes, from a few that are scored.

    A unit costs what lies behind its mask point, because everything before is replayed from a
    record: between timed groups of one kind the seconds per unit are interpolated.

    Args:
        score: the prepared criterion.
        groups: to score, in order of execution.
    """
    score(replace(groups[0], units=1))  # the first pass warms up
    total = 0.0
    for kind in dict.fromkeys(group.kind for group in groups):
        members = [group for group in groups if group.kind == kind]
        timed = np.unique(np.linspace(0, len(members) - 1, SAMPLED_GROUPS).astype(int))
        seconds = [_seconds_per_unit(score, members[number]) for number in timed]
        each = np.interp(range(len(members)), timed, seconds)
        total += float(each @ np.array([group.units for group in members]))
    return total


def _seconds_per_unit(score: UnitScorer, group: Group) -> float:
    seconds = _seconds(score, replace(group, units=1))
    if seconds > FAST or group.units == 1:
        return seconds
    units = min(group.units, BATCH)
    return _seconds(score, replace(group, units=units)) / units


def _seconds(score: UnitScorer, group: Group) -> float:
    """Of two runs the faster one: other programs disturb a single run by several times."""

    def run() -> float:
        started = time.perf_counter()
        score(group)
        return time.perf_counter() - started

    return min(run(), run())
