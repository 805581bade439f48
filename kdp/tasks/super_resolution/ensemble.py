"""Self-ensemble: the mean of a network's outputs for the eight orientations of an image.

Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super resolution",
CVPR 2016; papers mark it with a plus sign or "x8".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ORIENTATIONS = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""Number of quarter turns, and whether the columns are reversed afterwards."""


def self_ensemble(upscale: Callable[[Tensor], Tensor], image_CHW: Tensor) -> Tensor:
    """The mean of the eight outputs, each turned back to the orientation of the image.

    Args:
        upscale: (C, h, w) -> (C, s*h, s*w), for any h and w.
        image_CHW: (C, h, w).

    Returns:
        (C, s*h, s*w), not rounded; within the range of the eight outputs.
    """
    total = torch.zeros(())
    for turns, flip in ORIENTATIONS:
        output = upscale(orient(image_CHW, turns, flip))
        total = total.to(output) + restore(output, turns, flip)
    return total / len(ORIENTATIONS)


def orient(image_CHW: Tensor, turns: int, flip: bool) -> Tensor:
    """The image turned by quarters, then flipped."""
    turned = torch.rot90(image_CHW, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def restore(image_CHW: Tensor, turns: int, flip: bool) -> Tensor:
    """The inverse of `orient`."""
    unflipped = image_CHW.flip(-1) if flip else image_CHW
    return torch.rot90(unflipped, -turns, (-2, -1))
