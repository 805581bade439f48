"""What training changes at random in an image with boxes: the usual recipe of YOLO detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from kdp.data.boxes import Boxes, Labels
from kdp.data.images import ImageArray

GREY = 114
"""Of what no image covers."""
SCALE, SHIFT = 0.5, 0.1
"""By how much an image grows or shrinks, and moves (of its side) to either direction."""
HUE, SATURATION, VALUE = 0.015, 0.7, 0.4
"""By how much colours change: hue of the whole circle, the others of themselves."""
LEAST_SIDE, LEAST_AREA, GREATEST_ASPECT = 2.0, 0.1, 100.0
"""What must be left of a box: pixels, share of its area, and ratio of its sides."""


@dataclass(frozen=True)
class BoxedImage:
    """An image that is in memory, with its boxes in pixels."""

    image: ImageArray
    boxes: Boxes
    labels: Labels


def mosaic(tiles: Sequence[BoxedImage], size: int, random: np.random.Generator) -> BoxedImage:
    """Four scenes of at most `size` around a random point of a grey square of twice that side.

    Boxes reach beyond the square where their image does.
    """
    canvas = np.full((2 * size, 2 * size, 3), GREY, np.uint8)
    x, y = (int(value) for value in random.integers(size // 2, size + size // 2 + 1, 2))
    boxes = []
    for number, tile in enumerate(tiles):
        height, width = tile.image.shape[:2]
        left = x if number % 2 else x - width
        top = y if number >= 2 else y - height
        _paste(canvas, tile.image, left, top)
        boxes.append(tile.boxes + np.array((left, top, left, top), np.float32))
    return BoxedImage(
        canvas, np.concatenate(boxes), np.concatenate([tile.labels for tile in tiles])
    )


def _paste(canvas: ImageArray, image: ImageArray, left: int, top: int) -> None:
    """As much of the image as is on the canvas."""
    bottom, right = top + image.shape[0], left + image.shape[1]
    seen = image[max(0, -top) : canvas.shape[0] - top, max(0, -left) : canvas.shape[1] - left]
    canvas[max(0, top) : bottom, max(0, left) : right] = seen


def moved(scene: BoxedImage, size: int, random: np.random.Generator) -> BoxedImage:
    """Scaled and shifted at random around the middle of a square of `size`.

    Boxes are cut to it, and those of which too little is left are dropped.
    """
    height, width = scene.image.shape[:2]
    scale = random.uniform(1 - SCALE, 1 + SCALE)
    middle = random.uniform(0.5 - SHIFT, 0.5 + SHIFT, 2) * size
    offset = middle - scale * np.array((width, height)) / 2
    # OpenCV's pixels lie on whole numbers, those of boxes between them.
    matrix = np.column_stack([scale * np.eye(2), offset + (scale - 1) / 2])
    image = cv2.warpAffine(scene.image, matrix, (size, size), borderValue=(GREY,) * 3)
    seen = np.clip(scene.boxes, 0, (width, height, width, height))
    whole, left = (boxes * scale + np.tile(offset, 2) for boxes in (scene.boxes, seen))
    left = np.clip(left, 0, size)
    keep = _worth_it(whole, left)
    return BoxedImage(
        image.astype(np.uint8, copy=False), left[keep].astype(np.float32), scene.labels[keep]
    )


def _worth_it(
    before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]
) -> npt.NDArray[np.bool_]:
    """(N,): whether enough is left of each box."""
    sides = after[:, 2:] - after[:, :2]
    area = (before[:, 2:] - before[:, :2]).prod(1)
    shortest, longest = sides.min(1), sides.max(1)
    return (
        (shortest > LEAST_SIDE)
        & (sides.prod(1) > LEAST_AREA * area)
        & (longest < GREATEST_ASPECT * shortest)
    )


def flipped(scene: BoxedImage) -> BoxedImage:
    """Left is right."""
    width = np.float32(scene.image.shape[1])
    boxes = scene.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return replace(scene, image=np.ascontiguousarray(scene.image[:, ::-1]), boxes=boxes)


def recoloured(scene: BoxedImage, random: np.random.Generator) -> BoxedImage:
    """Another hue, saturation and value."""
    hue, saturation, value = random.uniform(-1, 1, 3) * (HUE, SATURATION, VALUE)
    levels = np.arange(256)
    tables = (
        (levels + 180 * hue) % 180,
        np.clip(levels * (1 + saturation), 0, 255),
        np.clip(levels * (1 + value), 0, 255),
    )
    table = np.stack(tables, axis=-1).astype(np.uint8)[None]
    changed = cv2.LUT(cv2.cvtColor(scene.image, cv2.COLOR_RGB2HSV), table)
    image = cv2.cvtColor(changed, cv2.COLOR_HSV2RGB)
    return replace(scene, image=image.astype(np.uint8, copy=False))
