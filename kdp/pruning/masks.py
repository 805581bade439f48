"""Masks at work: checked against a network, as gates, and as zeros in its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.pruning.groups import Group, MaskPoint, Masks, unit_indices, weights_per_unit


def check_masks(groups: Sequence[Group], masks: Masks, where: str) -> None:
    """Make sure that masks belong to a network with these groups.

    Raises:
        KdpError: a group is missing, unknown or of another size.
    """
    units = {group.name: group.units for group in groups}
    wrong = sorted(units.keys() ^ masks.keys()) or [
        name for name, mask in masks.items() if mask.shape != (units[name],)
    ]
    if wrong:
        raise KdpError(f"{where} holds the masks of another network (see group {wrong[0]})")


def load_masks(path: Path, groups: Sequence[Group]) -> Masks:
    """The masks that `kdp prune` wrote, checked against a network's groups.

    Raises:
        KdpError: unreadable, no masks in it, or those of another network.
    """
    masks = load(path).extra.get("masks")
    if masks is None:
        raise KdpError(f"{path} holds no masks; `kdp prune` writes them")
    check_masks(groups, masks, str(path))
    return dict(masks)


def kept_units(masks: Masks) -> dict[str, int]:
    """How many units each group keeps."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


@torch.no_grad()
def zero_removed(model: nn.Module, groups: Sequence[Group], masks: Masks) -> None:
    """Set every parameter entry of a removed unit to zero, in place."""
    params = dict(model.named_parameters())
    for group in groups:
        removed = ~masks[group.name]
        if not removed.any():
            continue
        for piece in group.weight_slices:
            tensor = params[piece.param]
            index = unit_indices(removed, piece.width, piece.start).to(tensor.device)
            tensor.index_fill_(piece.dim, index, 0.0)


def removed_are_zero(model: nn.Module, groups: Sequence[Group], masks: Masks) -> bool:
    """Whether every parameter entry of a removed unit is exactly zero."""
    params = dict(model.named_parameters())
    return all(
        not weights_per_unit(params[piece.param], piece, group.units)[~masks[group.name]].any()
        for group in groups
        for piece in group.weight_slices
    )


@contextmanager
def masks_applied(model: nn.Module, groups: Sequence[Group], masks: Masks) -> Iterator[None]:
    """Run the network with the masks multiplied in at the gates; its weights are untouched."""
    with ExitStack() as stack:
        for group in groups:
            if masks[group.name].all():
                continue
            for gate in group.mask_points:
                closed = MaskInput(gate, [masks[group.name]])
                handle = model.get_submodule(gate.module).register_forward_pre_hook(closed)
                stack.callback(handle.remove)
        yield


class MaskInput:
    """A hook before a module: multiplies masks into its input, at one gate.

    Args:
        gate: the place.
        masks: of the units, True = kept, each for an equal share of the samples, in order.
    """

    def __init__(self, gate: MaskPoint, masks: Sequence[Tensor]) -> None:
        self.gate = gate
        self.removed = [unit_indices(~mask, gate.width, gate.start) for mask in masks]

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, dim = args[0], self.gate.dim
        factor = torch.ones(len(self.removed), x.shape[dim], device=x.device, dtype=x.dtype)
        for row, places in zip(factor, self.removed, strict=True):
            row[places.to(x.device)] = 0.0
        shape = [len(self.removed)] + [1] * x.ndim
        shape[dim if dim < 0 else dim + 1] = -1
        masked = x.unflatten(0, (len(self.removed), -1)) * factor.view(shape)
        return (masked.flatten(0, 1), *args[1:])
