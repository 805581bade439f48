"""Importance from weights and gradients, and a random baseline."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from pydantic import PositiveFloat
from torch import Tensor

from kdp.pruning.groups import Group, ParamSlice, weights_per_unit
from kdp.pruning.importance.base import ScoringContext, UnitScorer


def magnitude(context: ScoringContext, p: PositiveFloat = 1) -> UnitScorer:
    """Sum of |w|^p over a unit's weights (p = 1: Li et al., ICLR 2017).

    Args:
        context: only the model is used.
        p: 1 for the L1 norm, 2 for the squared L2 norm.
    """
    params = dict(context.model.named_parameters())

    def score(group: Group) -> Tensor:
        return _sum_per_unit(group, lambda piece: params[piece.param].detach().abs() ** p)

    return score


def taylor(context: ScoringContext) -> UnitScorer:
    """Sum of |g * w| over a unit's weights, g the gradient of the task loss.

    First-order Taylor expansion of the loss, one term per weight (Molchanov et al., CVPR 2019).
    """
    model = context.model
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        loss = context.task.loss(model(context.task.inputs(context.batch)), context.batch)
        grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    gradients = dict(zip(params, grads, strict=True))

    def weighted(piece: ParamSlice) -> Tensor:
        # None where the loss does not depend on the parameter: such weights cost nothing to lose.
        gradient = gradients.get(piece.param)
        weight = params[piece.param].detach()
        return torch.zeros_like(weight) if gradient is None else (gradient * weight).abs()

    return lambda group: _sum_per_unit(group, weighted)


def random(context: ScoringContext) -> UnitScorer:
    """Uniform in 0..1: the baseline that every other criterion must beat."""

    def score(group: Group) -> Tensor:
        # One generator per group: scores depend on the seed and the group alone, not on the order
        # in which groups are scored. crc32, because hash() of a string differs between processes.
        generator = torch.Generator().manual_seed(context.seed + zlib.crc32(group.name.encode()))
        return torch.rand(group.units, 1, generator=generator, dtype=torch.float64)

    return score


def _sum_per_unit(group: Group, values: Callable[[ParamSlice], Tensor]) -> Tensor:
    """Sum values of the parameters' shapes over each unit's entries: (units, 1), float64."""
    sums = [
        weights_per_unit(values(piece), piece, group.units).double().sum(1)
        for piece in group.weight_slices
    ]
    return torch.stack(sums).sum(0).unsqueeze(1).cpu()
