"""Exponential moving average (EMA) of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema_of(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's parameters; buffers are copied, not averaged.

    Args:
        model: copied here; call `update_parameters(model)` after every step.
        decay: weight of the past, 0..1; with 0 the average equals the network.
    """

    def blend(average: Tensors, current: Tensors, count: Tensor | int) -> None:
        # Warm-up as in TensorFlow's ExponentialMovingAverage: a young average forgets faster.
        # Otherwise the initial weights would dominate it for the first 1 / (1 - decay) steps.
        keep = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(average, current, 1 - keep)

    return AveragedModel(model, multi_avg_fn=blend)
