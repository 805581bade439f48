"""What can be removed from a network: groups of interchangeable units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slice:
    """The entries of one parameter that belong to a group's units.

    Attributes:
        param: its dotted name in the state dict.
        dim: the dimension the units lie along.
        width: consecutive entries of one unit.
        buffer: whether it is a buffer, which is not learnt (a running mean, say).
    """

    param: str
    dim: int
    width: int = 1
    buffer: bool = False


@dataclass(frozen=True)
class Group:
    """A set of interchangeable units, and everything that goes when one of them goes.

    Attributes:
        name: unique in the network.
        kind: what the units are ("tab_heads", "channels"); groups of a kind share limits.
        units: how many there are.
        gate: the module before which the mask multiplies: removal is exact at its input.
        gate_dim: the dimension of the gate's input that the units lie along.
        gate_width: consecutive entries of one unit there.
        slices: the parameters to zero, or to cut.
        argument: the argument of the network that holds the number of units.
        index: position in that argument when it is a list, with `length` entries.
    """

    name: str
    kind: str
    units: int
    gate: str
    gate_dim: int
    gate_width: int
    slices: tuple[Slice, ...]
    argument: str
    index: int | None = None
    length: int = 0

    @property
    def weights(self) -> tuple[Slice, ...]:
        """The slices of what is learnt."""
        return tuple(piece for piece in self.slices if not piece.buffer)


Masks = dict[str, Tensor]
"""One boolean per unit and group, True = keep."""


def full_masks(groups: list[Group]) -> Masks:
    """Masks that keep everything."""
    return {group.name: torch.ones(group.units, dtype=torch.bool) for group in groups}


def by_unit(tensor: Tensor, piece: Slice, units: int) -> Tensor:
    """A parameter arranged as (units, entries of a unit)."""
    return tensor.movedim(piece.dim, 0).reshape(units, -1)
