"""MATLAB-style bicubic resizing, which super-resolution papers generate their LR images with."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdp.data.images import ImageArray

_MARGIN = 4
"""Output pixels of padding on each side; the bicubic kernel reaches 2."""


def bicubic(image_BCHW: Tensor, scale: float) -> Tensor:
    """Resize by `scale` as MATLAB's `imresize` does, antialiased when shrinking.

    torch's antialiased kernel is MATLAB's, but torch renormalises it at the border where MATLAB
    mirrors the image: so the image is mirrored here and the margin is cut off afterwards.

    Args:
        image_BCHW: (B, C, H, W), float.
        scale: an integer or the reciprocal of one.

    Returns:
        (B, C, ceil(H * scale), ceil(W * scale)), not clipped.
    """
    height, width = image_BCHW.shape[-2:]
    # Padding by whole output pixels keeps the sampling positions; `step` is one in input pixels.
    step = max(round(1 / scale), 1)
    pad = _MARGIN * step
    rows, cols = (_symmetric(side, pad, step) for side in (height, width))
    padded = image_BCHW.index_select(-2, rows).index_select(-1, cols)
    resized = F.interpolate(padded, scale_factor=scale, mode="bicubic", antialias=True)
    skip = round(pad * scale)
    size = [math.ceil(side * scale - 1e-6) for side in (height, width)]
    return resized[..., skip : skip + size[0], skip : skip + size[1]]


def bicubic_uint8(image: ImageArray, scale: float) -> ImageArray:
    """`bicubic` of an (H, W, C) uint8 image, rounded and clipped to uint8.

    It computes in float64, so that rounding errors do not decide values near a half.
    """
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    resized = bicubic(tensor, scale)[0].permute(1, 2, 0)
    return resized.round().clamp(0, 255).to(torch.uint8).numpy()


def _symmetric(side: int, pad: int, step: int) -> Tensor:
    """Indices that pad a line with its mirror image, to a length that `step` divides."""
    right = pad + (-side) % step
    index = torch.arange(-pad, side + right) % (2 * side)
    return torch.where(index < side, index, 2 * side - 1 - index)
