"""How networks are measured, and what a device allows."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from kdp.config.base import Count, CountOrZero, Section, Side


class MeasureConfig(Section):
    """How `compare` measures networks; `input_size` is also that of the MAC budget."""

    input_size: tuple[Side, Side] | None = None
    """(height, width) of the input that MACs are counted for; the task's own if not given."""
    latency_size: tuple[Side, Side] | None = None
    """(height, width) of the input that is timed; the task's own if not given."""
    latency_runs: Count = 7
    """Timed forward passes, of which the median is reported."""
    warmup_runs: CountOrZero = 2
    """Forward passes before the clock starts."""


class LimitsConfig(Section):
    """Limits on the size and MACs of the deployed network; checked before training."""

    bytes: PositiveInt | None = None
    """Largest size of the parameters, in bytes."""
    bits: Literal[8, 16, 32] = 16
    """Bits per parameter, for the size."""
    macs: PositiveInt | None = None
    """Most MACs for one input of the task."""
