"""Learnable gates: one factor per unit of a group, on an ordinary layer's weight.

The gate of a group multiplies the input of one layer (`Group.gates`); so does a factor on the
entries of that layer's weight, which costs less and works for any layer whose weight is one of the
group's slices. It is a parametrization (`torch.nn.utils.parametrize`): copies, averages,
checkpoints and wrappers treat it as a part of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdp.errors import KdpError
from kdp.pruning.groups import Group, Masks, ParamSlice

_STATE = ("gate", "mask", "importance", "measured", "score")


class Gate(nn.Module):
    """Multiplies the entries of each unit in a weight by gate * mask.

    The gradient passes the mask (a straight-through estimate): a removed unit's gate goes on
    learning what it would be good for, and the gradient of a gate is that of the factor itself.
    `importance` sums up what was measured in `measured` steps, `score` is what the last choice
    went by (see `kdp.pruning.dynamic`).

    Args:
        units: of the group.
        piece: the weight's part in the group.
    """

    mask: Tensor
    importance: Tensor
    measured: Tensor
    score: Tensor

    def __init__(self, units: int, piece: ParamSlice) -> None:
        super().__init__()
        self.piece = piece
        self.gate = nn.Parameter(torch.ones(units))
        self.register_buffer("mask", torch.ones(units, dtype=torch.bool))
        self.register_buffer("importance", torch.zeros(units, dtype=torch.float64))
        self.register_buffer("measured", torch.tensor(0))
        self.register_buffer("score", torch.zeros(units, dtype=torch.float64))

    def forward(self, weight: Tensor) -> Tensor:
        factor = self.gate + (self.gate * self.mask - self.gate).detach()
        return _scaled(weight, factor, self.piece)


def add_gates(model: nn.Module, groups: Sequence[Group]) -> dict[str, Gate]:
    """Put an open gate on every group, in place.

    Raises:
        KdpError: a group has several gates, or one that is no layer whose weight is among the
            group's slices.
    """
    gates = {}
    for group in groups:
        layer = model.get_submodule(_module(group))
        gates[group.name] = Gate(group.units, _piece(group)).to(
            layer.get_parameter("weight").device
        )
        parametrize.register_parametrization(layer, "weight", gates[group.name])
    return gates


def fold_gates(
    params: Mapping[str, Tensor], groups: Sequence[Group]
) -> tuple[dict[str, Tensor], Masks]:
    """The state dict of the network without gates, and what they let through.

    The gates' factors become part of the weights they act on; a removed unit's are zero there.

    Args:
        params: a state dict of the network with gates.
        groups: those that have one.
    """
    plain, masks = dict(params), {}
    for group in groups:
        prefix = f"{_module(group)}.parametrizations.weight"
        own = {key: plain.pop(f"{prefix}.0.{key}") for key in _STATE}
        weight = plain.pop(f"{prefix}.original")
        masks[group.name] = own["mask"].clone()
        plain[f"{_module(group)}.weight"] = _scaled(
            weight, own["gate"] * own["mask"], _piece(group)
        )
    return plain, masks


def l1(gates: Sequence[Gate], costs: Sequence[float]) -> Tensor:
    """Mean |gate| over all units, each weighted by the operations it costs."""
    total = sum(cost * len(gate.gate) for gate, cost in zip(gates, costs, strict=True))
    terms = [cost * gate.gate.abs().sum() for gate, cost in zip(gates, costs, strict=True)]
    return torch.stack(terms).sum() / total


def group_lasso(gates: Sequence[Gate], costs: Sequence[float]) -> Tensor:
    """Mean over the groups of ||gate||_2 / sqrt(units), each weighted by what it costs.

    Yuan and Lin (2006); it empties whole groups where L1 thins all of them out.
    """
    sizes = [cost * len(gate.gate) for gate, cost in zip(gates, costs, strict=True)]
    terms = [
        size * torch.linalg.vector_norm(gate.gate) / len(gate.gate) ** 0.5
        for gate, size in zip(gates, sizes, strict=True)
    ]
    return torch.stack(terms).sum() / sum(sizes)


SPARSITY_LOSSES = {"l1": l1, "group_lasso": group_lasso}
"""(gates, cost of one unit of each) -> scalar, 1 where every gate is 1."""


def _module(group: Group) -> str:
    """The one layer that reads a group's units."""
    if len(group.mask_points) != 1:
        raise KdpError(
            f"{group.name} is read by {len(group.mask_points)} layers; pruning while training "
            "supports one (remove `dynamic`; `kdp prune` supports several)"
        )
    return group.mask_points[0].module


def _piece(group: Group) -> ParamSlice:
    """The part of the weight that a group's gate acts on."""
    for piece in group.slices:
        if piece.param == f"{_module(group)}.weight":
            return piece
    raise KdpError(f"the group {group.name} has no weight to put a gate on")


def _scaled(weight: Tensor, factor: Tensor, piece: ParamSlice) -> Tensor:
    """A weight whose entries of unit i are multiplied by factor[i]."""
    shape = [1] * weight.ndim
    shape[piece.dim] = -1
    return weight * factor.repeat_interleave(piece.width).view(shape)
