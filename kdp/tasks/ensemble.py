"""Self-ensemble: the mean of what a network makes of a picture in its eight orientations.

Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super resolution",
CVPR 2016; papers mark it with a plus sign or "x8".
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ORIENTATIONS = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""Quarter turns, and whether the columns are reversed afterwards."""


def self_ensemble(upscale: Callable[[Tensor], Tensor], picture_CHW: Tensor) -> Tensor:
    """The mean of the eight outputs, each brought back to the picture's own orientation.

    Args:
        upscale: (C, h, w) -> (C, s*h, s*w), for any h and w.
        picture_CHW: (C, h, w).

    Returns:
        (C, s*h, s*w), not rounded; within the range of the eight outputs.
    """
    total = torch.zeros(())
    for turns, flip in ORIENTATIONS:
        output = upscale(orient(picture_CHW, turns, flip))
        total = total.to(output) + restore(output, turns, flip)
    return total / len(ORIENTATIONS)


def orient(picture_CHW: Tensor, turns: int, flip: bool) -> Tensor:
    """The picture turned by quarters, then flipped."""
    turned = torch.rot90(picture_CHW, turns, (-2, -1))
    return turned.flip(-1) if flip else turned


def restore(picture_CHW: Tensor, turns: int, flip: bool) -> Tensor:
    """The inverse of `orient`."""
    unflipped = picture_CHW.flip(-1) if flip else picture_CHW
    return torch.rot90(unflipped, -turns, (-2, -1))
