"""The lines that a training prints about its steps and validations."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from kdp.log import is_interactive, log
from kdp.progress import duration, rate
from kdp.training.job import Metrics


class StepReport:
    """Prints a line every few steps: loss, learning rate, speed and remaining time.

    On a terminal the progress bar shows the same, and the line is printed with `--verbose` only.

    Args:
        step: steps done before this run.
        total: steps in all.
    """

    def __init__(self, step: int, total: int) -> None:
        self.first, self.total = step, total
        self.started = time.monotonic()

    def __call__(self, step: int, loss: float, lr: float) -> None:
        """Print the line of a step."""
        per_second = (step - self.first) / max(time.monotonic() - self.started, 1e-9)
        left = duration((self.total - step) / per_second)
        level = logging.DEBUG if is_interactive() else logging.INFO
        line = f"step {step}/{self.total}: loss {loss:.4g}, lr {lr:.2g}, {rate(per_second)}"
        log.log(level, f"{line}, {left} left" if step < self.total else line)


def validation_line(step: int, metrics: Metrics, headline: Sequence[str]) -> str:
    """The headline metrics of a validation, by evaluation set.

    Args:
        step: steps done.
        metrics: quality by set and metric.
        headline: metrics to print, the most important one first.
    """
    return f"step {step}: validation on {_by_set(metrics, headline)}"


def final_line(step: int, metrics: Metrics, headline: Sequence[str]) -> str:
    """The headline metrics of the sets that are measured at the end alone.

    Args:
        step: of the best network.
        metrics, headline: as in `validation_line`.
    """
    return f"The best network, of step {step}: {_by_set(metrics, headline)}"


def _by_set(metrics: Metrics, headline: Sequence[str]) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{key} {values[key]:.4g}" for key in headline if key in values)
        for name, values in metrics.items()
    )
