"""Working with masks: check them, read them, zero weights by them, apply them during a pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.errors import KdpError
from kdp.pruning.groups import Group, MaskPoint, Masks, unit_indices, weights_per_unit


def check_masks(groups: Sequence[Group], masks: Masks, source: str) -> None:
    """Check that masks belong to a network with these groups.

    Args:
        groups: all groups of the network.
        masks: to check.
        source: where the masks come from, for the message.

    Raises:
        KdpError: a group is missing, unknown or has another number of units.
    """
    units = {group.name: group.units for group in groups}
    mismatched = sorted(units.keys() ^ masks.keys()) or [
        name for name, mask in masks.items() if mask.shape != (units[name],)
    ]
    if mismatched:
        raise KdpError(f"{source} holds the masks of another network (see group {mismatched[0]})")


def masks_of(path: Path, artifact: Artifact, groups: Sequence[Group]) -> Masks:
    """The masks in a file that `kdp prune` wrote, checked against a network's groups.

    Args:
        path: of the file, for messages.
        artifact: its content.
        groups: all groups of the network.

    Raises:
        KdpError: the file holds no masks, or those of another network.
    """
    masks = artifact.extra.get("masks")
    if masks is None:
        raise KdpError(f"{path} holds no masks: give the *_pruning_masks.pth of `kdp prune`")
    if not isinstance(masks, dict) or not all(
        isinstance(mask, Tensor) and mask.dtype == torch.bool for mask in masks.values()
    ):
        raise KdpError(f"{path} is damaged: its masks are not booleans by group")
    check_masks(groups, masks, str(path))
    return dict(masks)


def kept_units(masks: Masks) -> dict[str, int]:
    """Number of kept units per group."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


@torch.no_grad()
def zero_removed(model: nn.Module, groups: Sequence[Group], masks: Masks) -> None:
    """Zero every parameter entry of the removed units, in place.

    Buffers stay as they are: a BatchNorm channel whose weight and bias are zero gives zero,
    whatever its running statistics.
    """
    params = dict(model.named_parameters())
    for group in groups:
        removed = ~masks[group.name]
        if not removed.any():
            continue
        for param_slice in group.weight_slices:
            tensor = params[param_slice.param]
            index = unit_indices(removed, param_slice.width, param_slice.start).to(tensor.device)
            tensor.index_fill_(param_slice.dim, index, 0.0)


def removed_are_zero(model: nn.Module, groups: Sequence[Group], masks: Masks) -> bool:
    """True if every parameter entry of every removed unit is exactly zero."""
    params = dict(model.named_parameters())
    return all(
        not weights_per_unit(params[s.param], s, group.units)[~masks[group.name]].any()
        for group in groups
        for s in group.weight_slices
    )


@contextmanager
def masks_applied(model: nn.Module, groups: Sequence[Group], masks: Masks) -> Iterator[None]:
    """Multiply the masks in at all mask points inside the block; the weights are not touched."""
    with ExitStack() as stack:
        for group in groups:
            if masks[group.name].all():
                continue
            for point in group.mask_points:
                hook = MaskInput(point, [masks[group.name]])
                handle = model.get_submodule(point.module).register_forward_pre_hook(hook)
                stack.callback(handle.remove)
        yield


class MaskInput:
    """A forward pre-hook that multiplies masks into a module's input.

    Several masks share one batch: with M masks the batch of M * B samples consists of M equal
    parts in order, and mask m applies to part m. That is how many units are scored in one pass.

    Args:
        point: the module's input and where the units lie in it.
        masks: M masks, (units,) each; True keeps the unit.
    """

    def __init__(self, point: MaskPoint, masks: Sequence[Tensor]) -> None:
        self.point = point
        self.removed = [unit_indices(~mask, point.width, point.start) for mask in masks]

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, dim = args[0], self.point.dim
        factor = torch.ones(len(self.removed), x.shape[dim], device=x.device, dtype=x.dtype)
        for row, indices in zip(factor, self.removed, strict=True):
            row[indices.to(x.device)] = 0.0
        # The batch is unflattened to (M, B, ...), which shifts every non-negative dim by one.
        shape = [len(self.removed)] + [1] * x.ndim
        shape[dim if dim < 0 else dim + 1] = -1
        masked = x.unflatten(0, (len(self.removed), -1)) * factor.view(shape)
        return (masked.flatten(0, 1), *args[1:])
