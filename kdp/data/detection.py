"""Training samples of images with boxes: sample i depends on the seed and on i alone."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.data.boxes import AnnotatedImage, Boxes, Labels
from kdp.data.images import ImageArray
from kdp.data.mosaic import GREY, BoxedImage, flipped, mosaic, moved, recoloured
from kdp.data.order import EpochOrder
from kdp.data.patches import CACHE_BYTES, to_tensor

TILES = 4
"""Images per mosaic."""


class BoxDataset(Dataset[dict[str, Tensor]]):
    """Images with their boxes, reshuffled in every epoch and augmented.

    Args:
        images: the images to draw from; at least one.
        size: side of the square that the network sees, in pixels.
        seed: of the order and the augmentation.
        augment: apply mosaic, scaling, shifting, flipping and colour jitter; else only letterbox.
        length: number of samples.
        mosaic: probability (0..1) that an augmented sample is a mosaic of four images.
        close_mosaic: number of final epochs without mosaics. Mosaics look unlike real images, and
            the last epochs adapt the network, its normalisation statistics first, to real ones.
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
        self.rows = TILES * max([1, *(len(image.labels) for image in images)])
        self._order = EpochOrder(seed, len(images))
        self._cache: dict[int, BoxedImage] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`{"image": (3, size, size) in 0..1, "boxes": (M, 5)}`.

        A row of boxes is class, centre x, centre y, width, height, relative to the square. M is the
        same for all samples, so that they can be stacked; padding rows have the class -1.
        """
        index = self._order(number)
        if self.augment:
            probability = self.mosaic if number < self.closed_from else 0.0
            boxed = self._augmented(
                index, probability, np.random.default_rng((self.seed, number, 1))
            )
        else:
            boxed = _letterboxed(self._boxed(index), self.size)
        boxes = padded_rows(boxed.boxes, boxed.labels, self.size, self.rows)
        return {"image": to_tensor(boxed.image), "boxes": boxes}

    def _augmented(
        self, index: int, mosaic_probability: float, random: np.random.Generator
    ) -> BoxedImage:
        if random.random() < mosaic_probability:
            others = random.integers(len(self.images), size=TILES - 1)
            tiles = [self._boxed(i) for i in (index, *map(int, others))]
            boxed = mosaic(tiles, self.size, random)
        else:
            boxed = _letterboxed(self._boxed(index), self.size)
        boxed = recoloured(moved(boxed, self.size, random), random)
        return flipped(boxed) if random.integers(2) else boxed

    def _boxed(self, index: int) -> BoxedImage:
        """An image, resized so that its longer side is `size`, with its boxes."""
        if index in self._cache:
            return self._cache[index]
        annotated = self.images[index]
        image, scale = _fitted(annotated.read(), self.size)
        boxed = BoxedImage(image, annotated.boxes * np.float32(scale), annotated.labels)
        if self._cached_bytes < CACHE_BYTES:
            self._cache[index] = boxed
            self._cached_bytes += image.nbytes
        return boxed


def padded_rows(boxes: Boxes, labels: Labels, size: int, count: int) -> Tensor:
    """Boxes as the loss reads them: rows of class, centre x, centre y, width, height.

    Args:
        boxes: (N, 4) corners in a square, in pixels.
        labels: (N,) classes.
        size: side of the square, to which the rows are relative.
        count: of all rows; those after the boxes have the class -1.
    """
    rows = np.zeros((count, 5), np.float32)
    rows[:, 0] = -1
    low, high = boxes[:, :2], boxes[:, 2:]
    parts = ((low + high) / 2, high - low)
    rows[: len(labels)] = np.column_stack([labels, *(p / size for p in parts)])
    return torch.from_numpy(rows)


def letterboxed_boxes(boxes: Boxes, scale: float, offset: tuple[int, int]) -> Boxes:
    """(N, 4) corners in an image -> corners in its square; the inverse of `unletterbox`."""
    return boxes * np.float32(scale) + np.tile(np.array(offset, np.float32), 2)


def letterbox(image: ImageArray, size: int) -> tuple[ImageArray, float, tuple[int, int]]:
    """Resize an image and centre it in a grey square, as Ultralytics' LetterBox does.

    Returns:
        (size, size, 3); the scale factor; left and top of the image in the square, in pixels.
    """
    fitted, scale = _fitted(image, size)
    height, width = fitted.shape[:2]
    # With an odd number of grey columns or rows the extra one goes to the right or the bottom.
    left, top = (size - width) // 2, (size - height) // 2
    square = np.full((size, size, 3), GREY, np.uint8)
    square[top : top + height, left : left + width] = fitted
    return square, scale, (left, top)


def unletterbox(
    boxes: Boxes, scale: float, offset: tuple[int, int], height: int, width: int
) -> Boxes:
    """(N, 4) corners in the square -> corners in the image of this size, clipped to it."""
    corners = (boxes - np.tile(np.array(offset, np.float32), 2)) / np.float32(scale)
    return np.clip(corners, 0, np.array((width, height, width, height), np.float32))


def _fitted(image: ImageArray, size: int) -> tuple[ImageArray, float]:
    """Resize so that the longer side is `size`; returns the scale factor too."""
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    if shape != (width, height):
        image = cv2.resize(image, shape).astype(np.uint8, copy=False)
    return image, scale


def _letterboxed(boxed: BoxedImage, size: int) -> BoxedImage:
    """A fitted image with its boxes, centred in the square."""
    square, _, offset = letterbox(boxed.image, size)
    return BoxedImage(square, letterboxed_boxes(boxed.boxes, 1.0, offset), boxed.labels)
