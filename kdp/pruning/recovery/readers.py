"""The layers that read pruned units, and the rows of numbers that they read and write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.pruning.call_log import record_calls
from kdp.pruning.groups import Group, Masks, unit_indices

Affine = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Reader:
    """A convolution or linear layer that reads units of which some are removed.

    Attributes:
        name: of the module.
        inputs: the columns that stay, of its weight as a matrix (outputs, inputs).
        outputs: the rows that stay.
    """

    name: str
    inputs: Tensor
    outputs: Tensor


def readers(
    model: nn.Module, groups: Sequence[Group], masks: Masks, example: Tensor
) -> tuple[list[Reader], list[str]]:
    """The layers to refit.

    Args:
        model: the network.
        groups: all its groups.
        masks: which units stay.
        example: an input, (1, ...), which tells in what order layers run.

    Returns:
        Layers in order of execution, and the names of those that read removed units and cannot be
        refitted: grouped convolutions, layers that run several times, other operations.
    """
    modules = dict(model.named_modules())
    reading = {
        point.module
        for group in groups
        if not masks[group.name].all()
        for point in group.mask_points
    }
    calls = [call.name for call in record_calls(model, example, set(), set())]
    order = [name for name in calls if name in reading]
    fit = [name for name in order if _is_refitted(modules[name]) and order.count(name) == 1]
    found = [_reader(name, affine(model, name), groups, masks) for name in fit]
    return found, sorted(reading - set(fit))


def affine(model: nn.Module, name: str) -> Affine:
    """A layer by its name.

    Raises:
        TypeError: it is neither a convolution nor linear.
    """
    layer = model.get_submodule(name)
    if not isinstance(layer, Affine):
        raise TypeError(f"{name} is a {type(layer).__name__}")
    return layer


def _is_refitted(module: nn.Module) -> TypeGuard[Affine]:
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _reader(name: str, layer: Affine, groups: Sequence[Group], masks: Masks) -> Reader:
    keep = [torch.ones(size, dtype=torch.bool) for size in layer.weight.shape[:2]]
    for group in groups:
        for piece in group.slices:
            if piece.param == f"{name}.weight" and piece.dim < 2:
                removed = unit_indices(~masks[group.name], piece.width, piece.start)
                keep[piece.dim][removed] = False
    kernel = layer.weight[0, 0].numel()
    inputs = keep[1].repeat_interleave(kernel).nonzero().flatten()
    return Reader(name, inputs, keep[0].nonzero().flatten())


def input_rows(layer: Affine, x: Tensor, positions: Tensor) -> Tensor:
    """What a layer reads at some of its output positions.

    Args:
        layer: the layer.
        x: its input, (B, C, H, W) of a convolution, (..., C) of a linear layer.
        positions: (P,), of all output positions; batch first, then rows, then columns.

    Returns:
        (P, columns of the layer's weight as a matrix).
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])[positions]
    x = F.pad(x, layer._reversed_padding_repeated_twice)
    (high, wide), (down, right) = layer.kernel_size, layer.stride
    dilate_y, dilate_x = layer.dilation
    rows = (x.shape[2] - dilate_y * (high - 1) - 1) // down + 1
    columns = (x.shape[3] - dilate_x * (wide - 1) - 1) // right + 1
    samples, place = positions // (rows * columns), positions % (rows * columns)
    # Gathering is much cheaper than unfolding everything where few positions are wanted.
    top, left = place // columns * down, place % columns * right
    y = top[:, None, None] + dilate_y * torch.arange(high, device=x.device)[:, None]
    z = left[:, None, None] + dilate_x * torch.arange(wide, device=x.device)
    patches = x.movedim(1, -1)[samples[:, None, None], y, z]  # (P, kernel height, width, C)
    return patches.movedim(-1, 1).flatten(1)


def output_rows(layer: Affine, y: Tensor, positions: Tensor) -> Tensor:
    """What a layer returns at some positions: (P, outputs); see `input_rows`."""
    if isinstance(layer, nn.Conv2d):
        y = y.movedim(1, -1)
    return y.reshape(-1, y.shape[-1])[positions]


def output_positions(layer: Affine, y: Tensor) -> int:
    """Number of positions of a layer's output, over the batch."""
    channels = y.shape[1] if isinstance(layer, nn.Conv2d) else y.shape[-1]
    return y.numel() // channels
