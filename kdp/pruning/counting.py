"""Counting the MACs of narrowed networks from shapes, without building them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from torch import nn

from kdp.pruning.groups import Group
from kdp.pruning.knapsack import MacCounter


def shape_mac_counter(
    model: nn.Module, groups: Sequence[Group], dense: Mapping[str, int]
) -> MacCounter:
    """A counter that multiplies the size of each weight by the positions it is applied at.

    That is exact for convolutional networks. Products of two features, as in attention, are taken
    to grow with the units that the output projection of the same module reads, so compare the
    counter with real counts before using it.

    Args:
        model: on any device, "meta" included.
        groups: all groups of the network.
        dense: MACs of the full network by module, see `kdp.measure.complexity.macs_by_module`.
    """
    own = _without_submodules(dense)
    shapes = {
        f"{name}.weight": tuple(module.weight.shape)
        for name, module in model.named_modules()
        if own.get(name) and isinstance(getattr(module, "weight", None), nn.Parameter)
    }
    positions = {
        name: own[name.removesuffix(".weight")] // prod(shape) for name, shape in shapes.items()
    }
    narrowed: dict[str, list[tuple[str, int, int]]] = {}
    for group in groups:
        for piece in group.weight_slices:
            if piece.param in shapes:
                narrowed.setdefault(piece.param, []).append((group.name, piece.dim, piece.width))
    units = {group.name: group.units for group in groups}
    products = _products(groups, own)
    # Whatever neither explains is charged to every narrowed network alike.
    by_weights = sum(positions[name] * prod(shape) for name, shape in shapes.items())
    constant = dense[""] - by_weights - sum(products.values())

    def count_macs(kept: Mapping[str, int]) -> int:
        total = constant
        for name, shape in shapes.items():
            # Two groups can narrow one weight (outputs by one, inputs by another), so subtract per
            # dimension and multiply afterwards.
            sides = list(shape)
            for group, dim, width in narrowed.get(name, ()):
                sides[dim] -= (units[group] - kept.get(group, units[group])) * width
            total += positions[name] * prod(sides)
        for grown, macs in products.items():
            total += macs * kept.get(grown, units[grown]) // units[grown]
        return total

    return count_macs


def _without_submodules(macs: Mapping[str, int]) -> dict[str, int]:
    """MACs of each module without those of the modules in it."""
    own = dict(macs)
    for name, of_module in macs.items():
        above = name
        while above:
            above = above.rpartition(".")[0]
            if above in own:  # lists of modules are absent
                own[above] -= of_module
                break
    return own


def _products(groups: Sequence[Group], own: Mapping[str, int]) -> dict[str, int]:
    """MACs of products of features by the group that they grow with.

    Attention multiplies queries, keys and values in the module that holds its output projection.
    """
    claims: dict[str, set[str]] = {}
    for group in groups:
        for point in group.mask_points:
            claims.setdefault(point.module.rpartition(".")[0], set()).add(group.name)
    products: dict[str, int] = {}
    for module, (name, *others) in claims.items():
        if own.get(module) and not others:
            products[name] = products.get(name, 0) + own[module]
    return products
