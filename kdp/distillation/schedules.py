"""How the weight of a distillation loss changes over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from kdp.config import LossConfig, PhaseConfig

ATTENTION_PHASES = (
    PhaseConfig(until=40 / 150, start=2.0, end=0.0),
    PhaseConfig(until=100 / 150, start=0.3, end=0.0),
    PhaseConfig(until=1.0, start=0.05, end=0.05),
)
"""The published three phases of attention transfer: 150 epochs, with breaks at 40 and 100."""


def factor(config: LossConfig, step: int, steps: int) -> float:
    """Factor of a loss's weight at a step.

    `linear` and `cosine` fall from 1 to 0; `piecewise` is linear inside each of `phases`.

    Args:
        config: schedule and phases are read.
        step: counted from 0.
        steps: of the whole run; the factor at this step would be the schedule's last.
    """
    done = min(step / steps, 1.0)
    if config.schedule == "linear":
        return 1.0 - done
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if config.schedule == "piecewise":
        return _piecewise(config.phases or ATTENTION_PHASES, done)
    return 1.0


def _piecewise(phases: Sequence[PhaseConfig], done: float) -> float:
    """A phase holds from where the one before ends, included, to its own end, excluded."""
    ends = [0.0, *(phase.until for phase in phases)]
    for phase, (begin, end) in zip(phases, pairwise(ends), strict=True):
        if done < end:
            return phase.start + (phase.end - phase.start) * (done - begin) / (end - begin)
    return phases[-1].end
