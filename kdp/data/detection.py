"""Samples for a detector; sample number i is the same whoever asks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.data.boxes import AnnotatedImage, Boxes
from kdp.data.images import ImageArray
from kdp.data.mosaic import GREY, BoxedImage, flipped, mosaic, moved, recoloured
from kdp.data.order import EpochOrder
from kdp.data.patches import CACHE_BYTES, to_tensor

TILES = 4
"""Images of a mosaic."""


class BoxDataset(Dataset[dict[str, Tensor]]):
    """Images with their boxes, shuffled anew in every epoch.

    Args:
        images: what to draw from; at least one.
        size: side of the square that the network sees, in pixels.
        seed: of everything random here.
        augment: mosaic, scale, shift, flip and colours at random; else a letterbox.
        length: how many samples there are.
        mosaic: how often (0..1) a sample is made of four images, where `augment` is on.
        close_mosaic: epochs at the end in which none is.
    """

    def __init__(
        self,
        images: Sequence[AnnotatedImage],
        size: int,
        seed: int,
        augment: bool,
        length: int,
        mosaic: float = 1.0,
        close_mosaic: int = 0,
    ) -> None:
        self.images, self.size, self.seed = images, size, seed
        self.augment, self.length, self.mosaic = augment, length, mosaic
        self.closed_from = length - close_mosaic * len(images)
        self.rows = TILES * max([1, *(len(one.labels) for one in images)])
        self._order = EpochOrder(seed, len(images))
        self._cache: dict[int, BoxedImage] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`{"image": (3, size, size) in 0..1, "boxes": (M, 5)}`.

        A row of boxes is class, centre x, centre y, width, height, relative to the square; the
        class is -1 where there is no object. M is the same for all samples.
        """
        index = self._order(number)
        if self.augment:
            share = self.mosaic if number < self.closed_from else 0.0
            scene = self._changed(index, share, np.random.default_rng((self.seed, number, 1)))
        else:
            scene = _centred(self._scene(index), self.size)
        return {"image": to_tensor(scene.image), "boxes": self._padded(scene)}

    def _changed(self, index: int, share: float, random: np.random.Generator) -> BoxedImage:
        if random.random() < share:
            others = random.integers(len(self.images), size=TILES - 1)
            tiles = [self._scene(one) for one in (index, *map(int, others))]
            scene = mosaic(tiles, self.size, random)
        else:
            scene = _centred(self._scene(index), self.size)
        scene = recoloured(moved(scene, self.size, random), random)
        return flipped(scene) if random.integers(2) else scene

    def _scene(self, index: int) -> BoxedImage:
        """An image resized to fit."""
        if index in self._cache:
            return self._cache[index]
        one = self.images[index]
        image, scale = _fitted(one.read(), self.size)
        scene = BoxedImage(image, one.boxes * np.float32(scale), one.labels)
        if self._cached_bytes < CACHE_BYTES:
            self._cache[index] = scene
            self._cached_bytes += image.nbytes
        return scene

    def _padded(self, scene: BoxedImage) -> Tensor:
        rows = np.zeros((self.rows, 5), np.float32)
        rows[:, 0] = -1
        first, last = scene.boxes[:, :2], scene.boxes[:, 2:]
        sides = ((first + last) / 2, last - first)
        rows[: len(scene.labels)] = np.column_stack([scene.labels, *(s / self.size for s in sides)])
        return torch.from_numpy(rows)


def letterbox(image: ImageArray, size: int) -> tuple[ImageArray, float, tuple[int, int]]:
    """Fit an image into the middle of a grey square, as Ultralytics' LetterBox does.

    Returns:
        (size, size, 3); the scale; left and top of the image in the square, in pixels.
    """
    fitted, scale = _fitted(image, size)
    height, width = fitted.shape[:2]
    # Of an odd number of grey columns or rows, the right and the lower side have one more.
    left, top = (size - width) // 2, (size - height) // 2
    square = np.full((size, size, 3), GREY, np.uint8)
    square[top : top + height, left : left + width] = fitted
    return square, scale, (left, top)


def unletterbox(
    boxes: Boxes, scale: float, offset: tuple[int, int], height: int, width: int
) -> Boxes:
    """(N, 4) corners in the square -> in an image of this height and width, cut to it."""
    back = (boxes - np.tile(np.array(offset, np.float32), 2)) / np.float32(scale)
    return np.clip(back, 0, np.array((width, height, width, height), np.float32))


def _fitted(image: ImageArray, size: int) -> tuple[ImageArray, float]:
    """Resized so that the longer side is `size`, and the scale."""
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    if shape != (width, height):
        image = cv2.resize(image, shape).astype(np.uint8, copy=False)
    return image, scale


def _centred(scene: BoxedImage, size: int) -> BoxedImage:
    """A fitted scene in its letterbox."""
    square, _, offset = letterbox(scene.image, size)
    return BoxedImage(square, scene.boxes + np.tile(np.array(offset, np.float32), 2), scene.labels)
