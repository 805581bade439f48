"""Progress with a rate and an estimate: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kdp.log import console, is_interactive, log

Advance = Callable[..., None]
"""`advance(count=1, note="")`: so many more steps are done; the note stands behind them."""

LINE_SHARE, LINE_SECONDS, MIN_SECONDS = 0.1, 30.0, 5.0
"""A plain line is due after this share of the steps or so many seconds, never in quicker
succession than `MIN_SECONDS`."""


def no_bar(count: float | Fraction = 1, note: str | None = None) -> None:
    """Stands for a progress bar where nothing is shown."""


class RateColumn(ProgressColumn):
    """Steps per second, or seconds per step when slow."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.finished_speed or task.speed))


@contextmanager
def progress(description: str, total: int, done: int = 0, lines: bool = True) -> Iterator[Advance]:
    """Show how far some work has come; the block gets `advance(count=1, note="")`.

    Args:
        description: what is being done.
        total: steps in all.
        done: steps done before.
        lines: print plain lines where there is no terminal; a training prints its own.
    """
    if not log.isEnabledFor(logging.INFO) or not (is_interactive() or lines):
        yield no_bar
    elif is_interactive():
        with _bar(description, total, done) as advance:
            yield advance
    else:
        yield _Lines(description, total, done)


@contextmanager
def _bar(description: str, total: int, done: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(description, total=total, completed=done, note="")

        def advance(count: int = 1, note: str | None = None) -> None:
            bar.update(task, advance=count)
            if note is not None:
                bar.update(task, note=note)

        yield advance


class _Lines:
    """Progress as lines of the log, for files and pipes."""

    def __init__(self, description: str, total: int, done: int) -> None:
        self.description, self.total = description, total
        self.first = self.printed = self.done = Fraction(done)
        self.started = self.last = time.monotonic()
        self.note = ""

    def __call__(self, count: float | Fraction = 1, note: str | None = None) -> None:
        """Count steps, and print a line where one is due."""
        self.done += Fraction(count)
        self.note = self.note if note is None else note
        if count and self._is_due():
            self._print()

    def _is_due(self) -> bool:
        if self.done >= self.total:
            return self.printed < self.total
        waited = time.monotonic() - self.last
        steps = self.done - self.printed
        return waited >= LINE_SECONDS or (
            waited >= MIN_SECONDS and steps >= LINE_SHARE * self.total
        )

    def _print(self) -> None:
        self.printed, self.last = self.done, time.monotonic()
        seconds, steps = self.last - self.started, float(self.done - self.first)
        parts = [f"{self.description}: {int(self.done)} of {self.total}"]
        if self.done.denominator > 1:  # within a step, such as one large image
            parts[0] += f" ({float(self.done / self.total):.0%})"
        if self.done >= self.total:
            parts.append(f"took {duration(seconds)}")
        elif steps and seconds:
            left = float(self.total - self.done) * seconds / steps
            parts += [rate(steps / seconds), f"{duration(left)} left", self.note]
        log.info(", ".join(part for part in parts if part))


def rate(per_second: float | None) -> str:
    """A speed in words: steps per second, or seconds per step when slow."""
    if not per_second:
        return "-"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{1 / per_second:.1f} s each"


def duration(seconds: float) -> str:
    """A time in words: 42 s, 7 min, 3 h 05 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
