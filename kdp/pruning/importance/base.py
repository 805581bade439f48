"""What a criterion is given, and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from kdp.pruning.groups import Group

RawScores = dict[str, Tensor]
"""Per group what was measured of each unit: (units, measurements)."""
Scores = dict[str, Tensor]
"""Per group the importance of each unit: (units,), float64."""


class ScoringTask(Protocol):
    """What importance asks of a task; see `kdp.tasks.base.Task`."""

    def inputs(self, batch: dict[str, Tensor]) -> Tensor: ...

    def loss(self, output: Tensor, batch: dict[str, Tensor]) -> Tensor: ...

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor: ...

    def taps(self, model: nn.Module) -> list[str]: ...


@dataclass(frozen=True)
class ScoringContext:
    """A network to judge, and what to judge it on.

    Attributes:
        model: in eval mode.
        groups: all that may be pruned.
        task: loss, distance and taps.
        batch: the calibration batch, on the model's device.
        seed: of anything random.
    """

    model: nn.Module
    groups: Sequence[Group]
    task: ScoringTask
    batch: dict[str, Tensor]
    seed: int


UnitScorer = Callable[[Group], Tensor]
"""Measures the units of one group: (units, measurements)."""
