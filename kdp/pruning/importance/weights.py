"""Importance read off weights and gradients, and none at all: the rivals."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from pydantic import PositiveFloat
from torch import Tensor

from kdp.pruning.groups import Group, ParamSlice, weights_per_unit
from kdp.pruning.importance.base import ScoringContext, UnitScorer


def magnitude(context: ScoringContext, p: PositiveFloat = 1) -> UnitScorer:
    """Sum over a unit's weights of |w|^p: L1 (Li et al. 2017) or squared L2."""
    params = dict(context.model.named_parameters())

    def score(group: Group) -> Tensor:
        return _sum_over_slices(group, lambda piece: params[piece.param].detach().abs() ** p)

    return score


def taylor(context: ScoringContext) -> UnitScorer:
    """Sum over a unit's weights of |g * w| (Molchanov et al. 2019), g of the task's loss."""
    model = context.model
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.enable_grad():
        loss = context.task.loss(model(context.task.inputs(context.batch)), context.batch)
        found = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    gradients = dict(zip(params, found, strict=True))

    def weighted(piece: ParamSlice) -> Tensor:
        gradient = gradients.get(piece.param)
        weight = params[piece.param].detach()
        return torch.zeros_like(weight) if gradient is None else (gradient * weight).abs()

    return lambda group: _sum_over_slices(group, weighted)


def random(context: ScoringContext) -> UnitScorer:
    """Uniform in 0..1, from the seed and the group's name."""

    def score(group: Group) -> Tensor:
        generator = torch.Generator().manual_seed(context.seed + zlib.crc32(group.name.encode()))
        return torch.rand(group.units, 1, generator=generator, dtype=torch.float64)

    return score


def _sum_over_slices(group: Group, of: Callable[[ParamSlice], Tensor]) -> Tensor:
    sums = [
        weights_per_unit(of(piece), piece, group.units).double().sum(1)
        for piece in group.weight_slices
    ]
    return torch.stack(sums).sum(0).unsqueeze(1).cpu()
