"""Prunable groups: which units a network can lose, and every tensor a unit has a share in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ParamSlice:
    """The entries of one parameter or buffer that belong to the units of a group.

    Unit i owns the entries from `start + i * width` up to `start + (i + 1) * width` along `dim`.

    Attributes:
        param: dotted name in the state dict.
        dim: dimension along which the units lie.
        width: consecutive entries per unit.
        buffer: True for a buffer (such as a running mean), which no optimizer updates.
        start: index of the first unit's first entry; above 0 behind other concatenated inputs.
    """

    param: str
    dim: int
    width: int = 1
    buffer: bool = False
    start: int = 0


@dataclass(frozen=True)
class MaskPoint:
    """A place where a group's mask is multiplied in: the input of a module that reads the units.

    Masking there equals removing the unit. One point earlier it would not: a bias, a normalization
    or an activation with f(0) != 0 would turn a masked zero into something else.

    Attributes:
        module: dotted name of the reading module.
        dim: dimension of its input along which the units lie.
        width: consecutive entries per unit.
        start: index of the first unit's first entry.
    """

    module: str
    dim: int
    width: int = 1
    start: int = 0


@dataclass(frozen=True)
class Group:
    """A set of interchangeable units, with everything that is removed along with a unit.

    Attributes:
        name: unique within the network.
        kind: what the units are, such as "tab_heads" or "channels"; limits apply per kind.
        units: number of units.
        mask_points: the inputs of all modules that read the units.
        slices: the units' entries in parameters and buffers; zeroed by `kdp prune`, cut by
            `kdp rebuild`.
        argument: constructor argument of the network that holds the number of units.
        positions: where in that argument, if it is a list; empty if it is a single number.
        length: length of that list.
        min_units: the fewest units with which the network still runs.
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
        """The slices of learned parameters, without buffers."""
        return tuple(param_slice for param_slice in self.slices if not param_slice.buffer)


Masks = dict[str, Tensor]
"""Group name -> one boolean per unit, (units,); True keeps the unit."""


def full_masks(groups: list[Group]) -> Masks:
    """Masks that keep every unit."""
    return {group.name: torch.ones(group.units, dtype=torch.bool) for group in groups}


def weights_per_unit(tensor: Tensor, param_slice: ParamSlice, units: int) -> Tensor:
    """The entries of a parameter that belong to a group, one row per unit.

    Args:
        tensor: the parameter, or values of its shape such as |w|.
        param_slice: which of its entries.
        units: number of units in the group.

    Returns:
        (units, entries per unit).
    """
    entries = tensor.narrow(param_slice.dim, param_slice.start, units * param_slice.width)
    return entries.movedim(param_slice.dim, 0).reshape(units, -1)


def unit_indices(mask: Tensor, width: int, start: int = 0) -> Tensor:
    """Indices of the entries whose unit is True in a mask.

    Args:
        mask: (units,), boolean.
        width: consecutive entries per unit.
        start: index of the first unit's first entry.

    Returns:
        (True units * width,), ascending.
    """
    return mask.repeat_interleave(width).nonzero().flatten() + start
