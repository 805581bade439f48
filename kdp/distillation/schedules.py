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
"""The three published phases of attention transfer: breaks at epochs 40 and 100 of 150."""


def weight_factor(config: LossConfig, step: int, steps: int) -> float:
    """What a loss's weight is multiplied by at a step.

    `constant` is 1, `linear` and `cosine` fall from 1 to 0, `piecewise` is linear in each phase.

    Args:
        config: `schedule` and `phases` are read.
        step: counted from 0.
        steps: of the whole run. The last step of a run is `steps - 1`, so the schedule's final
            value is approached and not reached.
    """
    progress = min(step / steps, 1.0)
    if config.schedule == "linear":
        return 1.0 - progress
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if config.schedule == "piecewise":
        return _piecewise(config.phases or ATTENTION_PHASES, progress)
    return 1.0


def _piecewise(phases: Sequence[PhaseConfig], progress: float) -> float:
    """Interpolate within the phase that progress lies in; a phase excludes its own end."""
    ends = (phase.until for phase in phases)
    # `kdp.config.DistillConfig.in_shares` has turned steps and epochs into shares before a run.
    bounds = [0.0, *(end for end in ends if end is not None)]
    for phase, (begin, end) in zip(phases, pairwise(bounds), strict=True):
        if progress < end:
            return phase.start + (phase.end - phase.start) * (progress - begin) / (end - begin)
    return phases[-1].end
