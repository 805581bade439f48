"""The running average of the weights while they train."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential average of a network's parameters; buffers follow the network.

    Args:
        model: copied here; later given to `update_parameters` after every step.
        decay: weight of the past, 0..1; with 0 the average is the network as it is.
    """

    def blend(average: Tensors, current: Tensors, count: Tensor | int) -> None:
        # A young average forgets faster, so that it is not held back by the random start.
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(average, current, 1 - keep)

    return AveragedModel(model, multi_avg_fn=blend)
