"""What can be removed from a network: groups of interchangeable units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ParamSlice:
    """The entries of one parameter that belong to a group's units.

    Attributes:
        param: its dotted name in the state dict.
        dim: the dimension the units lie along.
        width: consecutive entries of one unit.
        buffer: whether it is a buffer, which is not learnt (a running mean, say).
        start: where the entries of the first unit begin; what was concatenated lies behind others.
    """

    param: str
    dim: int
    width: int = 1
    buffer: bool = False
    start: int = 0


@dataclass(frozen=True)
class MaskPoint:
    """Where the mask of a group multiplies: removal is exact at the input of this module.

    Attributes:
        module: its dotted name.
        dim: the dimension of its input that the units lie along.
        width: consecutive entries of one unit there.
        start: where the entries of the first unit begin.
    """

    module: str
    dim: int
    width: int = 1
    start: int = 0


@dataclass(frozen=True)
class Group:
    """A set of interchangeable units, and everything that goes when one of them goes.

    Attributes:
        name: unique in the network.
        kind: what the units are ("tab_heads", "channels"); groups of a kind share limits.
        units: how many there are.
        mask_points: of everything that reads the units.
        slices: the parameters to zero, or to cut.
        argument: the argument of the network that holds the number of units.
        positions: in that argument where it is a list, with `length` entries.
        min_units: units without which there is no network.
    """

    name: str
    kind: str
    units: int
    mask_points: tuple[MaskPoint, ...]
    slices: tuple[ParamSlice, ...]
    argument: str
    positions: tuple[int, ...] = ()
    length: int = 0
    min_units: int = 0

    @property
    def weight_slices(self) -> tuple[ParamSlice, ...]:
        """The slices of what is learnt."""
        return tuple(piece for piece in self.slices if not piece.buffer)


Masks = dict[str, Tensor]
"""One boolean per unit and group, True = keep."""


def full_masks(groups: list[Group]) -> Masks:
    """Masks that keep everything."""
    return {group.name: torch.ones(group.units, dtype=torch.bool) for group in groups}


def weights_per_unit(tensor: Tensor, piece: ParamSlice, units: int) -> Tensor:
    """A parameter's part arranged as (units, entries of a unit)."""
    own = tensor.narrow(piece.dim, piece.start, units * piece.width)
    return own.movedim(piece.dim, 0).reshape(units, -1)


def unit_indices(mask: Tensor, width: int, start: int = 0) -> Tensor:
    """Where the entries of the units lie whose mask is True: (kept units * width,)."""
    return mask.repeat_interleave(width).nonzero().flatten() + start
