"""Lengths of a training in optimizer steps, or in epochs of its data.

An epoch is as many steps as there are batches, the last one counted although it may be smaller:
ceil(samples / batch_size), as loaders of data count it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from kdp.config.base import MAX_COUNT, Section
from kdp.errors import KdpError

Epochs = Annotated[float, Field(gt=0, le=1_000_000)]
EpochsOrZero = Annotated[float, Field(ge=0, le=1_000_000)]


class LengthSection(Section):
    """A section whose lengths may be given in steps or in epochs, one of the two."""

    epoch_keys: ClassVar[Mapping[str, str]] = {}
    """Keys of lengths in steps -> the keys of the same lengths in epochs."""
    required_lengths: ClassVar[tuple[str, ...]] = ()
    """Those of them without a default."""

    @model_validator(mode="before")
    @classmethod
    def _choose_units(cls, data: Any) -> Any:
        """A default in steps gives way to a length in epochs, and null is the default."""
        if not isinstance(data, dict):
            return data
        chosen = dict(data)
        for steps, epochs in cls.epoch_keys.items():
            if chosen.get(epochs) is not None:
                chosen.setdefault(steps, None)
            elif chosen.get(steps) is None:
                chosen.pop(steps, None)
        return chosen

    @model_validator(mode="after")
    def _one_unit(self) -> LengthSection:
        for steps, epochs in self.epoch_keys.items():
            given = [key for key in (steps, epochs) if getattr(self, key) is not None]
            if len(given) == 2:
                raise ValueError(f"give {steps} or {epochs}, and null for the other")
            if not given and steps in self.required_lengths:
                raise ValueError(f"give {steps} or {epochs}")
        return self

    @property
    def uses_epochs(self) -> bool:
        """Whether a length is given in epochs."""
        return any(getattr(self, key) is not None for key in self.epoch_keys.values())

    def lengths(self, epoch: int | None) -> dict[str, Any]:
        """The keys that are given in epochs, in steps.

        Args:
            epoch: steps of an epoch; None where no length is given in epochs.

        Raises:
            KdpError: a length is more than `MAX_COUNT` steps.
            ValueError: there is a length in epochs, and `epoch` is None.
        """
        given = {steps: getattr(self, epochs) for steps, epochs in self.epoch_keys.items()}
        given = {key: value for key, value in given.items() if value is not None}
        if given and epoch is None:
            raise ValueError("lengths in epochs need the number of training samples")
        return {key: _in_steps(self.epoch_keys[key], v, epoch or 0) for key, v in given.items()}


def _in_steps(key: str, epochs: float | list[float], epoch: int) -> int | list[int]:
    if isinstance(epochs, list):
        return [_steps(key, each, epoch) for each in epochs]
    return _steps(key, epochs, epoch)


def _steps(key: str, epochs: float, epoch: int) -> int:
    steps = max(round(epochs * epoch), 1) if epochs else 0
    if steps > MAX_COUNT:
        raise KdpError(f"{key}: {epochs:g} epochs are {steps:,} steps, more than {MAX_COUNT:,}")
    return steps


def epoch_steps(samples: int, batch_size: int) -> int:
    """Steps of an epoch."""
    return ceil(samples / batch_size)
