"""The optimizer of a training."""

from __future__ import annotations

import torch
from torch import nn

from kdp.config import TrainSettings


def make_optimizer(
    model: nn.Module, extra_modules: nn.Module, settings: TrainSettings
) -> torch.optim.Optimizer:
    """SGD, Adam or, with weight decay, AdamW.

    Only tensors of two or more dimensions are decayed: not biases and norms, as is common, not
    gates (decay would prune them), and not the extra modules.

    Args:
        model: the network; frozen parameters are left out.
        extra_modules: modules that are trained along with it.
        settings: optimizer, learning rate, momentum, betas and weight decay are read.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    extra = [p for p in extra_modules.parameters() if p.requires_grad]
    decayed = {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay}
    rest = {"params": [*(p for p in trained if p.ndim < 2), *extra], "weight_decay": 0.0}
    groups = [group for group in (decayed, rest) if group["params"]]
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, settings.lr, momentum, nesterov=momentum > 0)
    # AdamW decouples the decay from the gradient; `weight_decay` of Adam itself would not.
    optimizer = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return optimizer(groups, lr=settings.lr, betas=settings.betas)
