"""Counting the operations of narrowed networks without building them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod

import torch
from torch import Tensor, nn

from kdp.pruning.groups import Group
from kdp.pruning.knapsack import MacCounter


def weight_mac_counter(
    model: nn.Module, example: Tensor, groups: Sequence[Group], dense: int
) -> MacCounter:
    """MACs as the entries of every layer's weight times the positions it is applied at.

    That is all there is to convolutional networks. Products of two features, as in attention, are
    taken for constant: compare with a real count before use.

    Args:
        model: on any device, "meta" included.
        example: an input on the same device.
        groups: what narrows.
        dense: MACs of the full network.
    """
    positions = _positions(model, example)
    shapes = {name: tuple(model.get_parameter(name).shape) for name in positions}
    rest = dense - sum(positions[name] * prod(shape) for name, shape in shapes.items())
    narrowed: dict[str, list[tuple[str, int, int]]] = {}
    for group in groups:
        for piece in group.weight_slices:
            if piece.param in shapes:
                narrowed.setdefault(piece.param, []).append((group.name, piece.dim, piece.width))
    units = {group.name: group.units for group in groups}

    def count(kept: Mapping[str, int]) -> int:
        total = rest
        for name, shape in shapes.items():
            sides = list(shape)
            for group, dim, width in narrowed.get(name, ()):
                sides[dim] -= (units[group] - kept.get(group, units[group])) * width
            total += positions[name] * prod(sides)
        return total

    return count


def _positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """How often each weight is applied, by its name."""
    found: dict[str, int] = {}

    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                stack.callback(
                    module.register_forward_hook(_Noting(f"{name}.weight", found)).remove
                )
        model.eval()(example)
    return found


class _Noting:
    """A forward hook that adds up the positions of a layer's outputs."""

    def __init__(self, name: str, found: dict[str, int]) -> None:
        self.name, self.found = name, found

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        self.found[self.name] = self.found.get(self.name, 0) + output.numel() // len(weight)
