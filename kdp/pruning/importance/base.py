"""What an importance criterion receives and returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from kdp.progress import no_bar
from kdp.pruning.groups import Group

RawScores = dict[str, Tensor]
"""Group name -> measurements of its units: (units, measurements), float64."""
Scores = dict[str, Tensor]
"""Group name -> importance of its units: (units,), float64; higher is kept longer."""


class ScoringTask(Protocol):
    """The part of a task that criteria use; see `kdp.tasks.base.Task`."""

    def inputs(self, batch: dict[str, Tensor]) -> Tensor: ...

    def loss(self, output: Tensor, batch: dict[str, Tensor]) -> Tensor: ...

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor: ...

    def taps(self, model: nn.Module) -> list[str]: ...


@dataclass(frozen=True)
class ScoringContext:
    """A network to score and the data to score it on.

    Attributes:
        model: in eval mode.
        groups: everything that may be pruned.
        task: loss, output distance and taps.
        batch: the calibration batch, on the model's device.
        seed: of anything random.
        report: called with the number of units that a criterion has just measured, for progress
            within a group; what it leaves out counts at the end of the group.
    """

    model: nn.Module
    groups: Sequence[Group]
    task: ScoringTask
    batch: dict[str, Tensor]
    seed: int
    report: Callable[[int], None] = no_bar


UnitScorer = Callable[[Group], Tensor]
"""Measures the units of one group: (units, measurements), float64, on the CPU."""
