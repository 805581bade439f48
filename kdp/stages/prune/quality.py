"""How good a network is before pruning, as cut, and recovered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from kdp.finite import outputs_finite
from kdp.progress import progress
from kdp.tasks.base import Metrics, Task
from kdp.training.shutdown import stop_at_once

UNPRUNED, AS_CUT, RECOVERED = "unpruned", "as cut", "recovered"


@dataclass(frozen=True)
class PrunedQuality:
    """Metrics of the states of one network.

    Attributes:
        states: metrics by evaluation set, by state, in the order in which the states came about.
        headline_metrics: those that a table shows.
    """

    states: dict[str, dict[str, Metrics]]
    headline_metrics: tuple[str, ...]

    @property
    def last(self) -> dict[str, Metrics]:
        """Of the network that is written."""
        return list(self.states.values())[-1]

    def plain(self) -> dict[str, Any]:
        """For the record of the file: metrics by set, as every stage has them, and by state."""
        return {**self.last, "quality": self.states}


def measure_quality(
    task: Task, networks: Mapping[str, nn.Module], stopped: str
) -> PrunedQuality | None:
    """Evaluate the states of a network on all sets; None if there are no evaluation sets.

    Args:
        task: of the networks.
        networks: by state.
        stopped: what an interruption says.

    Raises:
        KdpError: outputs are not finite.
        Interrupted: on SIGINT, SIGTERM or SIGHUP.
    """
    total = sum(len(samples) for samples in task.evaluation_sets.values())
    if not total:
        return None
    with ExitStack() as stack:
        stack.enter_context(stop_at_once(stopped))
        advance = stack.enter_context(progress("evaluate", total))
        for state, network in networks.items():
            stack.enter_context(outputs_finite(network, f"the network {state}"))
        metrics = task.evaluate_all(list(networks.values()), advance)
    states = dict(zip(networks, metrics, strict=True))
    return PrunedQuality(states, task.headline_metrics)
