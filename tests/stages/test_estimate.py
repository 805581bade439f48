"""The estimated time of measuring importance, on a clock that a criterion moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdp.pruning.groups import Group, MaskPoint
from kdp.stages.prune import estimate
from kdp.stages.prune.estimate import BATCH, SAMPLED_GROUPS, scoring_seconds


class Clock:
    """Time passes while units are scored: the less, the later their group reads them."""

    def __init__(self, fastest: float) -> None:
        self.now, self.fastest, self.scored = 0.0, fastest, 0

    def perf_counter(self) -> float:
        return self.now

    def seconds(self, group: Group) -> float:
        """Of one unit: of heads 20, 19, .., 1 times the fastest, of neurons a fifth of that."""
        kind, number = group.name.split()
        return self.fastest * (20 - int(number)) / (1 if kind == "heads" else 5)

    def score(self, group: Group) -> Tensor:
        self.now += group.units * self.seconds(group)
        self.scored += group.units
        return torch.zeros(group.units, 1)


def groups() -> list[Group]:
    """Heads and neurons of 20 layers."""
    return [
        Group(f"{kind} {number}", kind, units, [MaskPoint("reader", 1)], [], "width")
        for number in range(20)
        for kind, units in (("heads", 4), ("neurons", 60))
    ]


@pytest.mark.parametrize("fastest", [0.001, 1.0])
def test_the_estimate_counts_what_lies_behind_each_unit(
    monkeypatch: pytest.MonkeyPatch, fastest: float
) -> None:
    clock = Clock(fastest)
    monkeypatch.setattr(estimate, "time", clock)
    estimated = scoring_seconds(clock.score, groups())
    real = sum(group.units * clock.seconds(group) for group in groups())
    assert estimated == pytest.approx(real)
    assert clock.scored <= 1 + 2 * SAMPLED_GROUPS * 2 * (1 + BATCH)
