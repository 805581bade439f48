"""The network that is learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdp.distillation.taps import Taps


class Teacher:
    """A frozen network: eval mode, no gradients, never updated.

    Args:
        model: the network; it is frozen in place, and moved to where its input is.
        names: the modules whose features are wanted.

    Raises:
        KdpError: the network has no such module.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.taps = Taps(model, names)
        self.device: torch.device | None = None

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Output, and features by tap."""
        if self.device != inputs.device:
            self.model.to(inputs.device)
            self.device = inputs.device
        with self.taps as features:
            output = self.model(inputs)
        return output, features
