"""What is scored and pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from kdp.config.base import Section


class CalibrationConfig(Section):
    """The patches importance is measured on."""

    patches: PositiveInt = 8
    patch_size: PositiveInt = 28


class PruneConfig(Section):
    """What is scored, how, and what the search may not do.

    `options` go to the criterion. `scores` is the file that keeps what it measured, where it is not
    to lie beside the other outputs. `min_units` and `round_to` are per kind of group: what a group
    keeps at least, and the multiple it keeps (`round_to` never forces below `min_units`).
    """

    criterion: str = "optin"
    scores: Path | None = None
    options: dict[str, Any] = {}
    calibration: CalibrationConfig = CalibrationConfig()
    min_units: dict[str, NonNegativeInt] = {}
    round_to: dict[str, PositiveInt] = {}
    kinds: list[str] | None = None


class RoundConfig(Section):
    """One round of progressive pruning: the share of every group's units that goes, of those that
    are left, and the steps of training afterwards."""

    pruning_ratio: float = Field(gt=0, lt=1)
    steps: PositiveInt
