"""Pruning while training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from kdp.config.base import Count, CountOrZero, Section
from kdp.config.epochs import Epochs, EpochsOrZero, LengthSection
from kdp.errors import KdpError


class SparsityConfig(Section):
    """Sparsity loss on the gates."""

    kind: Literal["l1", "group_lasso"] = "l1"
    """The L1 norm of the gates, or the group lasso, which empties whole groups."""
    weight: float = Field(ge=0)
    """Weight of the loss in the total."""


class DynamicConfig(LengthSection):
    """Pruning while training, by learnable gates, down to `mac_constraint`.

    The budget falls from all MACs at `start_step` to `mac_constraint` at `end_step`, along a cubic
    curve; every `period` steps the masks are recomputed to fit it.
    """

    epoch_keys: ClassVar[Mapping[str, str]] = {
        "start_step": "start_epoch",
        "end_step": "end_epoch",
        "period": "period_epochs",
    }
    required_lengths: ClassVar[tuple[str, ...]] = ("end_step",)

    criterion: str = "gate"
    """Importance of a unit: its gate, the magnitude of its weights, or the Taylor expansion of the
    loss (taylor)."""
    start_step: CountOrZero | None = 0
    """Step at which pruning starts."""
    start_epoch: EpochsOrZero | None = None
    """The same in epochs."""
    end_step: Count | None = None
    """Step from which on the budget is mac_constraint; this or end_epoch is required."""
    end_epoch: Epochs | None = None
    """The same in epochs."""
    period: Count | None = 10
    """Steps between two computations of the masks."""
    period_epochs: Epochs | None = None
    """The same in epochs."""
    regrowth: bool = True
    """Let removed units come back while the budget falls."""
    loss: SparsityConfig | None = None
    """Sparsity loss on the gates; none if not given."""

    @model_validator(mode="after")
    def _ends_later(self) -> DynamicConfig:
        for start, end, key in (
            (self.start_step, self.end_step, "end_step"),
            (self.start_epoch, self.end_epoch, "end_epoch"),
        ):
            if start is not None and end is not None and end <= start:
                raise ValueError(f"{key} ({end:g}) must be after {key.replace('end', 'start')}")
        return self

    def in_steps(self, epoch: int | None = None) -> DynamicSettings:
        """The section with every length in steps.

        Args:
            epoch: steps of an epoch; None where no length is given in epochs.

        Raises:
            KdpError: pruning ends before it starts.
        """
        settings = DynamicSettings.model_construct(**{**dict(self), **self.lengths(epoch)})
        if settings.end_step <= settings.start_step:
            raise KdpError(
                f"dynamic: pruning ends at step {settings.end_step}, but starts at step "
                f"{settings.start_step}"
            )
        return settings


class DynamicSettings(DynamicConfig):
    """The section as the pruner reads it: with every length in steps."""

    start_step: CountOrZero = 0
    end_step: Count
    period: Count = 10
