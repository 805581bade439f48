"""What is scored and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from kdp.config import registry
from kdp.config.base import Count, CountOrZero, OpenSection, Samples, Section, extend
from kdp.config.epochs import Epochs, LengthSection


class CalibrationConfig(OpenSection):
    """The training samples that importance is measured on."""

    patches: Samples = 8
    """Number of samples."""


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
    min_units: dict[str, CountOrZero] = {}
    """Fewest units that a group keeps, by kind of group."""
    round_to: dict[str, Count] = {}
    """Every group keeps a multiple of this many units, by kind of group; never forces a group below
    min_units."""
    kinds: list[str] | None = None
    """Kinds of groups that may be pruned; all if not given."""


def prune_schema() -> type[PruneConfig]:
    """`PruneConfig` with all keys that families registered for `calibration`."""
    # Pydantic takes the fields of the last base first.
    bases: tuple[type[Section], ...] = (*registry.calibration_options(), CalibrationConfig)
    doc = CalibrationConfig.__doc__
    calibration = extend("CalibrationConfig", bases, doc)
    sentence = PruneConfig.model_fields["calibration"].description
    field: Any = (calibration, Field(calibration(), description=sentence))
    return extend("PruneConfig", (PruneConfig,), PruneConfig.__doc__, calibration=field)


class RoundConfig(LengthSection):
    """One round of progressive pruning: prune, fine-tune, rebuild."""

    epoch_keys: ClassVar[Mapping[str, str]] = {"steps": "epochs"}

    pruning_ratio: float = Field(gt=0, lt=1)
    """Share of the remaining units of every group that this round removes."""
    steps: Count | None = None
    """Fine-tuning steps after pruning, or epochs; those of finetune if neither is given."""
    epochs: Epochs | None = None
    """The same in epochs."""
