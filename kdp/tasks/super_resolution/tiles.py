"""Super-resolving large images in overlapping tiles, with bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdp.tasks.super_resolution.section import TileConfig


def upscale_image(model: nn.Module, lr_CHW: Tensor, scale: int, tiles: TileConfig) -> Tensor:
    """`run_in_tiles`, clipped to 0..1."""
    return run_in_tiles(model, lr_CHW, scale, tiles).clamp(0, 1)


@torch.no_grad()
def run_in_tiles(model: nn.Module, lr_CHW: Tensor, scale: int, tiles: TileConfig) -> Tensor:
    """Run the network on one image, in tiles where a side exceeds the tile size.

    Tiles overlap and fade into one another linearly, so that no seam stands out.

    Args:
        model: in eval mode, on the device of `lr_CHW`.
        lr_CHW: (3, h, w) in 0..1.
        scale: output side divided by input side.
        tiles: size and overlap in input pixels.

    Returns:
        (3, scale*h, scale*w), as the network outputs it.
    """
    height, width = lr_CHW.shape[-2:]
    if max(height, width) <= tiles.size:
        return model(lr_CHW[None])[0]
    total = lr_CHW.new_zeros(lr_CHW.shape[0], height * scale, width * scale)
    weight = lr_CHW.new_zeros(height * scale, width * scale)
    for top, bottom in _spans(height, tiles):
        for left, right in _spans(width, tiles):
            tile = model(lr_CHW[None, :, top:bottom, left:right])[0]
            fade = torch.outer(
                _fade(bottom - top, top > 0, bottom < height, tiles, scale),
                _fade(right - left, left > 0, right < width, tiles, scale),
            ).to(tile)
            region = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
            total[region] += tile * fade
            weight[region] += fade
    # Ramps of tiles that overlap more than asked do not add up to one.
    return total / weight


def _spans(side: int, tiles: TileConfig) -> list[tuple[int, int]]:
    """Start and end of the tiles along a side.

    All have the full size, spread evenly: neighbours overlap by at least `tiles.overlap`. A
    smaller last tile would give the network less context than the others.
    """
    if side <= tiles.size:
        return [(0, side)]
    step = max(tiles.size - tiles.overlap, 1)
    count = -(-(side - tiles.overlap) // step)
    starts = [round(i * (side - tiles.size) / (count - 1)) for i in range(count)]
    return [(start, start + tiles.size) for start in starts]


def _fade(length: int, before: bool, after: bool, tiles: TileConfig, scale: int) -> Tensor:
    """Weights along a side: they rise and fall over the overlap where there is a neighbour.

    The outermost eighth of the overlap has no weight: there the zero padding of the convolutions
    changes the output.
    """
    line = torch.ones(length * scale)
    overlap = min(tiles.overlap, length) * scale
    margin = overlap // 8
    ramp = (torch.arange(overlap) + 0.5 - margin) / (overlap - 2 * margin)
    ramp = ramp.clamp(0, 1)
    if before:
        line[:overlap] *= ramp
    if after:
        line[-overlap:] *= ramp.flip(0)
    return line
