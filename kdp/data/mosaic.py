"""Augmentation of images with boxes: mosaic, scaling, shifting, flipping and colour jitter.

The usual recipe of YOLO detectors, with the defaults of Ultralytics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from kdp.data.boxes import Boxes, Labels
from kdp.data.images import ImageArray

GREY = 114
"""Grey level of pixels that no image covers."""
SCALE, SHIFT = 0.5, 0.1
"""Largest relative change of size, and largest shift as a fraction of the side."""
HUE, SATURATION, VALUE = 0.015, 0.7, 0.4
"""Largest change of hue, as a fraction of the colour circle, and relative change of the others."""
MIN_SIDE, MIN_AREA, MAX_ASPECT = 2.0, 0.1, 100.0
"""A box stays if its sides exceed these pixels, its area this fraction, and its aspect is less."""


@dataclass(frozen=True)
class BoxedImage:
    """An image in memory with its boxes.

    Attributes:
        image: (H, W, 3) RGB.
        boxes: (N, 4) corners in pixels.
        labels: (N,) class indices.
    """

    image: ImageArray
    boxes: Boxes
    labels: Labels


def mosaic(tiles: Sequence[BoxedImage], size: int, random: np.random.Generator) -> BoxedImage:
    """Four images around a random point of a grey square of side `2 * size`.

    Args:
        tiles: top left, top right, bottom left and bottom right, each at most `size` wide and high.
        size: side of the square that the network will see.
        random: generator of the point.

    Returns:
        The square. Boxes extend beyond it where their image does: `moved` clips them and needs
        the full extent to decide how much of an object remains visible.
    """
    canvas = np.full((2 * size, 2 * size, 3), GREY, np.uint8)
    # The tiles meet in the middle half of the canvas, which is what `moved` shows at scale 1.
    x, y = (int(value) for value in random.integers(size // 2, size + size // 2 + 1, 2))
    boxes = []
    for number, tile in enumerate(tiles):
        # Each tile touches the point with the corner nearest to it: right-hand tiles begin at x,
        # left-hand ones end there, and likewise for y.
        height, width = tile.image.shape[:2]
        left = x if number % 2 else x - width
        top = y if number >= 2 else y - height
        _paste(canvas, tile.image, left, top)
        boxes.append(tile.boxes + np.array((left, top, left, top), np.float32))
    return BoxedImage(
        canvas, np.concatenate(boxes), np.concatenate([tile.labels for tile in tiles])
    )


def _paste(canvas: ImageArray, image: ImageArray, left: int, top: int) -> None:
    """Copy the part of the image that lies on the canvas."""
    bottom, right = top + image.shape[0], left + image.shape[1]
    visible = image[max(0, -top) : canvas.shape[0] - top, max(0, -left) : canvas.shape[1] - left]
    canvas[max(0, top) : bottom, max(0, left) : right] = visible


def moved(boxed: BoxedImage, size: int, random: np.random.Generator) -> BoxedImage:
    """Scale and shift an image at random into a square of side `size`.

    Boxes are clipped to the square, and dropped if too little of them remains visible.
    """
    height, width = boxed.image.shape[:2]
    scale = random.uniform(1 - SCALE, 1 + SCALE)
    centre = random.uniform(0.5 - SHIFT, 0.5 + SHIFT, 2) * size
    offset = centre - scale * np.array((width, height)) / 2
    # A box that covers the first pixel spans 0..1, while warpAffine has the pixel's centre at 0:
    # with x = u + 1/2, x' = scale * x + offset becomes u' = scale * u + offset + (scale - 1) / 2.
    matrix = np.column_stack([scale * np.eye(2), offset + (scale - 1) / 2])
    image = cv2.warpAffine(boxed.image, matrix, (size, size), borderValue=(GREY,) * 3)
    # A mosaic already cut its tiles at the canvas, so boxes are clipped there and at the square;
    # the visible area is compared with that of the unclipped box.
    on_canvas = np.clip(boxed.boxes, 0, (width, height, width, height))
    full, visible = (boxes * scale + np.tile(offset, 2) for boxes in (boxed.boxes, on_canvas))
    visible = np.clip(visible, 0, size)
    keep = _still_visible(full, visible)
    return BoxedImage(
        image.astype(np.uint8, copy=False), visible[keep].astype(np.float32), boxed.labels[keep]
    )


def _still_visible(
    before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]
) -> npt.NDArray[np.bool_]:
    """(N,): whether enough of each box remains, given its corners before and after clipping."""
    sides = after[:, 2:] - after[:, :2]
    area = (before[:, 2:] - before[:, :2]).prod(1)
    shortest, longest = sides.min(1), sides.max(1)
    return (
        (shortest > MIN_SIDE)
        & (sides.prod(1) > MIN_AREA * area)
        & (longest < MAX_ASPECT * shortest)
    )


def flipped(boxed: BoxedImage) -> BoxedImage:
    """Mirror the image and its boxes horizontally."""
    width = np.float32(boxed.image.shape[1])
    boxes = boxed.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return replace(boxed, image=np.ascontiguousarray(boxed.image[:, ::-1]), boxes=boxes)


def recoloured(boxed: BoxedImage, random: np.random.Generator) -> BoxedImage:
    """Change hue, saturation and value at random."""
    hue, saturation, value = random.uniform(-1, 1, 3) * (HUE, SATURATION, VALUE)
    levels = np.arange(256)
    # OpenCV stores the hue of uint8 images in steps of 2 degrees, 0..179.
    tables = (
        (levels + 180 * hue) % 180,
        np.clip(levels * (1 + saturation), 0, 255),
        np.clip(levels * (1 + value), 0, 255),
    )
    table = np.stack(tables, axis=-1).astype(np.uint8)[None]
    hsv = cv2.LUT(cv2.cvtColor(boxed.image, cv2.COLOR_RGB2HSV), table)
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return replace(boxed, image=image.astype(np.uint8, copy=False))
