"""Pruning while training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from kdp.config.base import Count, CountOrZero, Section


class SparsityConfig(Section):
    """Sparsity loss on the gates."""

    kind: Literal["l1", "group_lasso"] = "l1"
    """The L1 norm of the gates, or the group lasso, which empties whole groups."""
    weight: float = Field(ge=0)
    """Weight of the loss in the total."""


class DynamicConfig(Section):
    """Pruning while training, by learnable gates, down to `mac_constraint`.

    The budget falls from all MACs at `start_step` to `mac_constraint` at `end_step`, along a cubic
    curve; every `period` steps the masks are recomputed to fit it.
    """

    criterion: str = "gate"
    """Importance of a unit: its gate, the magnitude of its weights, or the Taylor expansion of the
    loss (taylor)."""
    start_step: CountOrZero = 0
    """Step at which pruning starts."""
    end_step: Count
    """Step from which on the budget is mac_constraint."""
    period: Count = 10
    """Steps between two computations of the masks."""
    regrowth: bool = True
    """Let removed units come back while the budget falls."""
    loss: SparsityConfig | None = None
    """Sparsity loss on the gates; none if not given."""

    @model_validator(mode="after")
    def _ends_later(self) -> DynamicConfig:
        if self.end_step <= self.start_step:
            raise ValueError(f"end_step ({self.end_step}) must be after start_step")
        return self
