"""Training samples of labelled images: sample i depends on the seed and on i alone."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.data.folders import LabelledImage
from kdp.data.images import ImageArray
from kdp.data.order import EpochOrder
from kdp.data.patches import to_tensor


class LabelledDataset(Dataset[dict[str, Tensor]]):
    """Images with their labels, reshuffled in every epoch and augmented.

    Args:
        images: the images to draw from.
        size: side of the square that images are resized to, in pixels.
        seed: of the order and the augmentation.
        augment: flip, rotate, shift, scale, and change brightness and contrast at random.
        length: number of samples.
    """

    def __init__(
        self, images: Sequence[LabelledImage], size: int, seed: int, augment: bool, length: int
    ) -> None:
        self.images, self.size, self.seed = images, size, seed
        self.augment, self.length = augment, length
        self._order = EpochOrder(seed, len(images))
        self._cache: dict[int, ImageArray] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`{"image": (3, size, size) in 0..1, "label": ()}`."""
        index = self._order(number)
        if index not in self._cache:
            self._cache[index] = resized(self.images[index].read(), self.size)
        image = self._cache[index]
        if self.augment:
            # The 1 separates this stream of random numbers from the one that shuffles epochs.
            image = _augmented(image, np.random.default_rng((self.seed, number, 1)))
        label = torch.tensor(self.images[index].label)
        return {"image": to_tensor(image), "label": label}


def resized(image: ImageArray, size: int) -> ImageArray:
    """Resize to (size, size, 3): area averaging where a side shrinks, bilinear where it grows."""
    height, width = image.shape[:2]
    smaller = min(width, size), min(height, size)
    # Two steps, because OpenCV's INTER_AREA averages only if both sides shrink; with one growing
    # side it falls back to bilinear interpolation, and a long thin image would alias.
    for shape, method in ((smaller, cv2.INTER_AREA), ((size, size), cv2.INTER_LINEAR)):
        if image.shape[1::-1] != shape:
            image = cv2.resize(image, shape, interpolation=method).astype(np.uint8, copy=False)
    return image


def _augmented(image: ImageArray, random: np.random.Generator) -> ImageArray:
    """Rotate by up to 10 degrees, shift 8 %, scale 15 %; contrast 30 %, brightness 15 %."""
    size = image.shape[0]
    angle, scale = random.uniform(-10, 10), random.uniform(0.85, 1.15)
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    matrix[:, 2] += random.uniform(-0.08, 0.08, 2) * size
    if random.integers(2):
        image = np.ascontiguousarray(image[:, ::-1])
    warped = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101)
    gain, offset = random.uniform(0.7, 1.3), random.uniform(-0.15, 0.15) * 255
    augmented: ImageArray = np.clip(warped * gain + offset, 0, 255).astype(np.uint8)
    return augmented
