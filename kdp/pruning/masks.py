"""Masks at work: checked against a network, as gates, and as zeros in its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.pruning.groups import Group, Masks


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
        for piece in group.weights:
            tensor = params[piece.param]
            index = _entries(removed, piece.width).nonzero().flatten().to(tensor.device)
            tensor.index_fill_(piece.dim, index, 0.0)


def removed_are_zero(model: nn.Module, groups: Sequence[Group], masks: Masks) -> bool:
    """Whether every parameter entry of a removed unit is exactly zero."""
    params = dict(model.named_parameters())
    return all(
        not select(params[piece.param], ~masks[group.name], piece.dim, piece.width).any()
        for group in groups
        for piece in group.weights
    )


def select(tensor: Tensor, mask: Tensor, dim: int, width: int) -> Tensor:
    """The entries of the units whose mask is True, `width` consecutive ones per unit."""
    index = _entries(mask, width).nonzero().flatten()
    return tensor.index_select(dim, index.to(tensor.device))


@contextmanager
def gated(model: nn.Module, groups: Sequence[Group], masks: Masks) -> Iterator[None]:
    """Run the network with the masks multiplied in at the gates; its weights are untouched."""
    with ExitStack() as stack:
        for group in groups:
            if masks[group.name].all():
                continue
            hook = _Gate(_entries(masks[group.name], group.gate_width), group.gate_dim)
            handle = model.get_submodule(group.gate).register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield


class _Gate:
    """Multiplies the input of a module by a mask along one dimension."""

    def __init__(self, mask: Tensor, dim: int) -> None:
        self.mask, self.dim = mask, dim

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = args[0]
        shape = [1] * x.ndim
        shape[self.dim] = -1
        return (x * self.mask.to(x).view(shape), *args[1:])


def _entries(mask: Tensor, width: int) -> Tensor:
    """A mask of units spread over their entries: (units,) -> (units * width,)."""
    return mask.repeat_interleave(width)
