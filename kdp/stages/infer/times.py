"""How long the frames of a stream took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WHOLE = "frame"
"""Name of the time of a whole frame, beside those of its parts."""


@dataclass(frozen=True)
class TimeSummary:
    """Times of one part of the work, in milliseconds; `p95` is interpolated."""

    mean: float
    median: float
    p95: float

    @classmethod
    def of(cls, times: Sequence[float]) -> TimeSummary:
        """The summary of at least one time."""
        return cls(*map(float, (np.mean(times), np.median(times), np.percentile(times, 95))))

    def __str__(self) -> str:
        return f"mean {self.mean:.2f}, median {self.median:.2f}, p95 {self.p95:.2f}"


class FrameTimes:
    """Collects the times of frames and of their parts.

    The first frame is left out where there are others: libraries and caches warm up on it. A part
    that a frame did not need, such as a classifier where nothing was detected, has no time there.
    """

    def __init__(self) -> None:
        self._times: list[dict[str, float]] = []
        self._first = self._last = 0.0

    def add(self, ms: float, parts: Mapping[str, float], now: float) -> None:
        """Note a frame.

        Args:
            ms: of the whole prediction.
            parts: milliseconds by part.
            now: seconds on a clock, when the frame was predicted.
        """
        self._first = self._first if self._times else now
        self._last = now
        self._times.append({WHOLE: ms, **parts})

    @property
    def summaries(self) -> dict[str, TimeSummary]:
        """By part, the whole frame first; empty without frames."""
        counted = self._times[1:] or self._times
        names = dict.fromkeys(name for times in counted for name in times)
        return {
            name: TimeSummary.of([times[name] for times in counted if name in times])
            for name in names
        }

    @property
    def rate(self) -> float | None:
        """Frames per second from the first to the last, with reading, drawing and writing."""
        seconds = self._last - self._first
        return (len(self._times) - 1) / seconds if seconds > 0 else None

    def lines(self) -> list[str]:
        """The summary in words; nothing without frames."""
        if not self._times:
            return []
        count = max(1, len(self._times) - 1)
        without = " (without the first)" if len(self._times) > 1 else ""
        lines = [f"Times of {count} frames{without}, in ms:"]
        lines += [f"  {name}: {summary}" for name, summary in self.summaries.items()]
        rate = self.rate
        return [*lines, *([f"  {rate:.1f} frames per second in all"] if rate else [])]
