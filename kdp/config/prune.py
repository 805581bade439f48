"""What is scored and pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from kdp.config.base import Section


class CalibrationConfig(Section):
    """The training samples that importance is measured on."""

    patches: PositiveInt = 8
    """Number of samples."""
    patch_size: PositiveInt = 28
    """Side of a sample, in pixels, where the task crops its samples."""


class PruneConfig(Section):
    """How units are scored, and what the search may not remove."""

    criterion: str = "optin"
    """Importance criterion: optin, magnitude, taylor or random."""
    scores: Path | None = None
    """File that caches the measured importance; beside the other outputs if not given."""
    options: dict[str, Any] = {}
    """Keyword arguments of the criterion."""
    calibration: CalibrationConfig = CalibrationConfig()
    """The samples that importance is measured on."""
    min_units: dict[str, NonNegativeInt] = {}
    """Fewest units that a group keeps, by kind of group."""
    round_to: dict[str, PositiveInt] = {}
    """Every group keeps a multiple of this many units, by kind of group; never forces a group below
    min_units."""
    kinds: list[str] | None = None
    """Kinds of groups that may be pruned; all if not given."""


class RoundConfig(Section):
    """One round of progressive pruning: prune, fine-tune, rebuild."""

    pruning_ratio: float = Field(gt=0, lt=1)
    """Share of the remaining units of every group that this round removes."""
    steps: PositiveInt
    """Fine-tuning steps after pruning; they replace finetune.steps."""
