"""Learnable gates for pruning while training: one factor per unit, on a layer's weight.

A mask multiplies the input of the layer that reads a group (`Group.mask_points`). Scaling the
matching entries of that layer's weight gives the same output, costs less than scaling the
activations, and needs no change to any forward method. The gate is a parametrization
(`torch.nn.utils.parametrize`), so copies, weight averages, checkpoints and distributed wrappers
treat it as part of the network.
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
    """Scales a layer's weight by gate * mask, per unit.

    Args:
        units: number of units in the group.
        param_slice: the group's entries in the weight.

    Attributes:
        gate: (units,), the learned factors, 1 at the start.
        mask: (units,), boolean; True keeps the unit.
        importance: (units,), float64, summed over the steps since the last mask update.
        measured: how many steps are in that sum.
        score: (units,), float64, the mean importance that the last mask update used.
    """

    mask: Tensor
    importance: Tensor
    measured: Tensor
    score: Tensor

    def __init__(self, units: int, param_slice: ParamSlice) -> None:
        super().__init__()
        self.param_slice = param_slice
        self.gate = nn.Parameter(torch.ones(units))
        # Buffers, not attributes: a checkpoint must carry them, or a resumed run would update the
        # masks from another mean than the uninterrupted one.
        self.register_buffer("mask", torch.ones(units, dtype=torch.bool))
        self.register_buffer("importance", torch.zeros(units, dtype=torch.float64))
        self.register_buffer("measured", torch.tensor(0))
        self.register_buffer("score", torch.zeros(units, dtype=torch.float64))

    def forward(self, weight: Tensor) -> Tensor:
        # Straight-through estimator (Bengio et al. 2013): the value is gate * mask, the gradient
        # that of gate alone. The gate of a removed unit keeps learning what the unit would
        # contribute, so that a later mask update can bring it back.
        factor = self.gate + (self.gate * self.mask - self.gate).detach()
        return _scale_units(weight, factor, self.param_slice)


def add_gates(model: nn.Module, groups: Sequence[Group]) -> dict[str, Gate]:
    """Put a gate of ones on every group, in place; the network's output does not change.

    Returns:
        The gates by group name.

    Raises:
        KdpError: a group is read in several places, or the reading layer's weight is not among the
            group's slices.
    """
    gates = {}
    for group in groups:
        layer = model.get_submodule(_reading_layer(group))
        gates[group.name] = Gate(group.units, _gated_slice(group)).to(
            layer.get_parameter("weight").device
        )
        parametrize.register_parametrization(layer, "weight", gates[group.name])
    return gates


def fold_gates(
    params: Mapping[str, Tensor], groups: Sequence[Group]
) -> tuple[dict[str, Tensor], Masks]:
    """Multiply the gates into the weights and drop them from a state dict.

    Args:
        params: state dict of the network with gates.
        groups: the groups that have a gate.

    Returns:
        The state dict of the network without gates, and the masks. Removed units are zero in the
        gated weights only; `kdp.pruning.masks.zero_removed` zeroes the rest.
    """
    plain, masks = dict(params), {}
    for group in groups:
        prefix = f"{_reading_layer(group)}.parametrizations.weight"
        state = {key: plain.pop(f"{prefix}.0.{key}") for key in _STATE}
        weight = plain.pop(f"{prefix}.original")
        masks[group.name] = state["mask"].clone()
        plain[f"{_reading_layer(group)}.weight"] = _scale_units(
            weight, state["gate"] * state["mask"], _gated_slice(group)
        )
    return plain, masks


def l1(gates: Sequence[Gate], costs: Sequence[float]) -> Tensor:
    """Mean |gate| over all units, weighted by cost (network slimming, Liu et al. 2017).

    Args:
        gates: one per group.
        costs: MACs of one unit of each group.
    """
    total = sum(cost * len(gate.gate) for gate, cost in zip(gates, costs, strict=True))
    terms = [cost * gate.gate.abs().sum() for gate, cost in zip(gates, costs, strict=True)]
    return torch.stack(terms).sum() / total


def group_lasso(gates: Sequence[Gate], costs: Sequence[float]) -> Tensor:
    """Mean of ||gate||_2 / sqrt(units) over the groups, weighted by cost (Yuan and Lin 2006).

    It empties whole groups, where `l1` thins out all of them.

    Args:
        gates: one per group.
        costs: MACs of one unit of each group.
    """
    group_costs = [cost * len(gate.gate) for gate, cost in zip(gates, costs, strict=True)]
    terms = [
        group_cost * torch.linalg.vector_norm(gate.gate) / len(gate.gate) ** 0.5
        for gate, group_cost in zip(gates, group_costs, strict=True)
    ]
    return torch.stack(terms).sum() / sum(group_costs)


SPARSITY_LOSSES = {"l1": l1, "group_lasso": group_lasso}
"""(gates, cost of one unit of each) -> scalar; exactly 1 while every gate is 1."""


def _reading_layer(group: Group) -> str:
    """The name of the one layer that reads a group's units."""
    if len(group.mask_points) != 1:
        raise KdpError(
            f"{group.name} is read in {len(group.mask_points)} places; pruning while training "
            "supports one (remove `dynamic` and use `kdp prune`)"
        )
    return group.mask_points[0].module


def _gated_slice(group: Group) -> ParamSlice:
    """The group's entries in the weight of its reading layer."""
    for param_slice in group.slices:
        if param_slice.param == f"{_reading_layer(group)}.weight":
            return param_slice
    raise KdpError(f"the layer that reads {group.name} has no weight to put a gate on")


def _scale_units(weight: Tensor, factor: Tensor, param_slice: ParamSlice) -> Tensor:
    """Multiply the entries of unit i in a weight by factor[i]."""
    shape = [1] * weight.ndim
    shape[param_slice.dim] = -1
    return weight * factor.repeat_interleave(param_slice.width).view(shape)
