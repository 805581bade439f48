"""How networks are measured, and what a device allows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from kdp.config.base import Section


class MeasureConfig(Section):
    """Protocol of `compare` and of the budget; sizes are (height, width) of the input.

    Where a size is not given the task has one: 64x64 and 128x128 for super-resolution, the
    network's own for a classifier.
    """

    input_size: tuple[PositiveInt, PositiveInt] | None = None
    latency_size: tuple[PositiveInt, PositiveInt] | None = None
    latency_runs: PositiveInt = 7
    warmup_runs: int = Field(2, ge=0)


class LimitsConfig(Section):
    """What a network may take once it is deployed: `bytes` of parameters at so many `bits` each,
    and `macs` of one input of the task."""

    bytes: PositiveInt | None = None
    bits: Literal[8, 16, 32] = 16
    macs: PositiveInt | None = None
