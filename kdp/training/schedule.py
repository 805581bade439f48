"""Learning rate schedules, as functions of the step alone: a resumed run needs no state."""

from __future__ import annotations

import math

from kdp.config import TrainSettings


def learning_rate(config: TrainSettings, step: int) -> float:
    """The learning rate at a step.

    `constant` stays; `cosine` falls to zero; `multistep` halves at every milestone; `trapezoid`
    is constant, then falls linearly to zero over the last `decay_steps` (a fifth of the run if
    not given). All rise linearly over `warmup_steps` first.

    Args:
        config: rate, schedule and its parameters.
        step: counted from 0.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * _factor(config, step)


def _factor(config: TrainSettings, step: int) -> float:
    """What the learning rate is multiplied by after the warm-up."""
    if config.schedule == "cosine":
        progress = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
        return 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "multistep":
        return 0.5 ** sum(step >= milestone for milestone in config.milestones)
    if config.schedule == "trapezoid":
        decay = config.decay_steps or max(config.steps // 5, 1)
        return min(1.0, (config.steps - step) / decay)
    return 1.0
