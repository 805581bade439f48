"""Pruning while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from kdp.config.base import Section


class SparsityConfig(Section):
    """A loss on the gates: `l1`, or `group_lasso` that empties whole groups; see `dynamic`."""

    kind: Literal["l1", "group_lasso"] = "l1"
    weight: float = Field(ge=0)


class DynamicConfig(Section):
    """Pruning while training, by learnable gates, down to `mac_constraint`.

    From `start_step` on, every `period` steps, the units within the budget of that moment are
    chosen anew; the budget falls along a cubic ramp and is `mac_constraint` from `end_step` on.
    While it falls a removed unit may come back, unless `regrowth` is off.
    """

    criterion: str = "gate"
    start_step: int = Field(0, ge=0)
    end_step: PositiveInt
    period: PositiveInt = 10
    regrowth: bool = True
    loss: SparsityConfig | None = None

    @model_validator(mode="after")
    def _ends_later(self) -> DynamicConfig:
        if self.end_step <= self.start_step:
            raise ValueError(f"end_step ({self.end_step}) must be after start_step")
        return self
