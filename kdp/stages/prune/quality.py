"""How good a network is before pruning, as cut, and recovered."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from kdp.config import RecoverConfig
from kdp.finite import outputs_finite
from kdp.progress import progress
from kdp.pruning.groups import Group, Masks
from kdp.stages.prune.recovery import Recovery, recover_network
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


@dataclass(frozen=True)
class Reached:
    """What is left of a network after the cut: recovered if that is configured, and measured."""

    recovery: Recovery | None
    quality: PrunedQuality | None

    @property
    def metrics(self) -> dict[str, Metrics] | None:
        """By evaluation set, of the network that is written."""
        return self.quality.last if self.quality else None

    def plain(self) -> dict[str, Any]:
        """For the record of the file."""
        recovery = {} if self.recovery is None else {"recovery": self.recovery.plain()}
        return {**recovery, **(self.quality.plain() if self.quality else {})}


def refit_and_measure(
    settings: RecoverConfig | None,
    task: Task,
    dense: nn.Module,
    pruned: nn.Module,
    groups: list[Group],
    masks: Masks,
    seed: int,
    stopped: str,
    evaluate: bool,
) -> Reached:
    """Recover a pruned network in place, and measure its states.

    Args:
        settings: the section `recover`; None leaves the network as cut.
        task, dense, pruned, groups, masks, seed, stopped: see `recover_network`.
        evaluate: whether the states are measured.

    Raises:
        KdpError: see `recover_network` and `measure_quality`.
        Interrupted: on SIGINT, SIGTERM or SIGHUP.
    """
    states, recovery = {UNPRUNED: dense, AS_CUT: pruned}, None
    if settings is not None:
        states |= {AS_CUT: copy.deepcopy(pruned), RECOVERED: pruned}
        recovery = recover_network(settings, task, dense, pruned, groups, masks, seed, stopped)
    return Reached(recovery, measure_quality(task, states, stopped) if evaluate else None)


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
