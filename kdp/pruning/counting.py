"""Counting the MACs of narrowed networks from weight shapes, without building them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod

import torch
from torch import Tensor, nn

from kdp.pruning.groups import Group
from kdp.pruning.knapsack import MacCounter


def weight_mac_counter(
    model: nn.Module, example: Tensor, groups: Sequence[Group], dense_macs: int
) -> MacCounter:
    """A counter that multiplies the size of each weight by the positions it is applied at.

    That is exact for convolutional networks. Products of two features, as in attention, are taken
    as constant, so compare the counter with a real count before using it.

    Args:
        model: on any device, "meta" included.
        example: an input on the same device.
        groups: all groups of the network.
        dense_macs: MACs of the full network.
    """
    positions = _output_positions(model, example)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in positions}
    # Whatever the weights do not explain is charged to every narrowed network alike.
    constant = dense_macs - sum(positions[name] * prod(shape) for name, shape in shapes.items())
    narrowed: dict[str, list[tuple[str, int, int]]] = {}
    for group in groups:
        for piece in group.weight_slices:
            if piece.param in shapes:
                narrowed.setdefault(piece.param, []).append((group.name, piece.dim, piece.width))
    units = {group.name: group.units for group in groups}

    def count_macs(kept: Mapping[str, int]) -> int:
        total = constant
        for name, shape in shapes.items():
            # Two groups can narrow one weight (outputs by one, inputs by another), so subtract per
            # dimension and multiply afterwards.
            sides = list(shape)
            for group, dim, width in narrowed.get(name, ()):
                sides[dim] -= (units[group] - kept.get(group, units[group])) * width
            total += positions[name] * prod(sides)
        return total

    return count_macs


def _output_positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """How many positions each convolution or linear weight is applied at, by its name."""
    positions: dict[str, int] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                hook = _CountPositions(f"{name}.weight", positions)
                stack.callback(module.register_forward_hook(hook).remove)
        model.eval()(example)
    return positions


class _CountPositions:
    """A forward hook that adds up the output positions of a layer over all its calls."""

    def __init__(self, name: str, positions: dict[str, int]) -> None:
        self.name, self.positions = name, positions

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        out_channels = len(module.get_parameter("weight"))
        self.positions[self.name] = (
            self.positions.get(self.name, 0) + output.numel() // out_channels
        )
