"""How the weight of a distillation loss changes over a run."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Factor of the weight, given the part of the run that is done (0..1)."""


def factor(schedule: str, step: int, steps: int) -> float:
    """Factor of a loss at a step.

    Args:
        schedule: a key of `SCHEDULES`; `linear` and `cosine` fall from 1 to 0.
        step: counted from 0.
        steps: of the whole run; the factor at this step would be the schedule's last.
    """
    return SCHEDULES[schedule](min(step / steps, 1.0))
