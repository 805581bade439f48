"""MATLAB-style bicubic resizing, the one the super-resolution literature makes its data with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdp.data.images import ImageArray

_MARGIN = 4  # output pixels around the image: wider than the bicubic kernel reaches


def bicubic(image_BCHW: Tensor, scale: float) -> Tensor:
    """Resize by `scale` as MATLAB's `imresize` does (antialiased when it shrinks).

    Args:
        image_BCHW: (B, C, H, W), float.
        scale: an integer, or one divided by an integer.

    Returns:
        (B, C, ceil(H * scale), ceil(W * scale)), not clipped.
    """
    height, width = image_BCHW.shape[-2:]
    step = max(round(1 / scale), 1)
    pad = _MARGIN * step
    rows, cols = (_symmetric(side, pad, step) for side in (height, width))
    padded = image_BCHW.index_select(-2, rows).index_select(-1, cols)
    resized = F.interpolate(padded, scale_factor=scale, mode="bicubic", antialias=True)
    skip = round(pad * scale)
    size = [math.ceil(side * scale - 1e-6) for side in (height, width)]
    return resized[..., skip : skip + size[0], skip : skip + size[1]]


def bicubic_uint8(image: ImageArray, scale: float) -> ImageArray:
    """`bicubic` of an (H, W, C) uint8 image, rounded back to uint8."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    resized = bicubic(tensor, scale)[0].permute(1, 2, 0)
    return resized.round().clamp(0, 255).to(torch.uint8).numpy()


def _symmetric(side: int, pad: int, step: int) -> Tensor:
    """Positions of a line padded by its mirror image, to a length that `step` divides."""
    right = pad + (-side) % step
    index = torch.arange(-pad, side + right) % (2 * side)
    return torch.where(index < side, index, 2 * side - 1 - index)
