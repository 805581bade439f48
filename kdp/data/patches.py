"""Random training patches: sample i depends on the seed and on i alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.data.images import ImageArray
from kdp.data.pairs import Pair, small_images
from kdp.errors import KdpError, join_names

CACHE_BYTES = 2 * 1024**3
"""Decoded images that a data set keeps in memory, per worker."""


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Aligned random crops of image pairs, flipped and rotated.

    Every sample has its own random generator, seeded by (seed, number), so that neither the order
    of access nor the number of workers nor an interruption changes a sample.

    Args:
        pairs: the image pairs to crop from.
        scale: HR side divided by LR side.
        patch_size: side of the LR crop, in pixels.
        seed: of crops and augmentation.
        augment: flip and rotate by multiples of 90 degrees at random.
        length: number of samples.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scale: int,
        patch_size: int,
        seed: int,
        augment: bool,
        length: int,
    ) -> None:
        self.pairs, self.scale, self.patch_size = pairs, scale, patch_size
        self.seed, self.augment, self.length = seed, augment, length
        self._sizes_checked = False
        self._cache: dict[int, tuple[ImageArray, ImageArray]] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`{"lr": (3, p, p), "hr": (3, s*p, s*p)}`, float in 0..1.

        Raises:
            KdpError: an image is smaller than the patch, of whichever sample, or cannot be read.
        """
        self._check_sizes()
        random = np.random.default_rng((self.seed, number))
        hr, lr = self._images(int(random.integers(len(self.pairs))))
        size, scale = self.patch_size, self.scale
        top, left = (int(random.integers(side - size + 1)) for side in lr.shape[:2])
        lr = lr[top : top + size, left : left + size]
        hr = hr[top * scale : (top + size) * scale, left * scale : (left + size) * scale]
        if self.augment:
            turns, flip = int(random.integers(4)), bool(random.integers(2))
            lr, hr = (_turn(image, turns, flip) for image in (lr, hr))
        return {"lr": to_tensor(lr), "hr": to_tensor(hr)}

    def _check_sizes(self) -> None:
        """Look at all images before the first sample: they may be drawn hours later."""
        if self._sizes_checked:
            return
        if small := small_images(self.pairs, self.patch_size):
            raise KdpError(
                f"the LR images of {join_names(small)} are smaller than "
                f"patch_size={self.patch_size}: leave them out or lower it"
            )
        self._sizes_checked = True

    def _images(self, index: int) -> tuple[ImageArray, ImageArray]:
        if index in self._cache:
            return self._cache[index]
        pair = self.pairs[index]
        hr, lr = pair.hr(), pair.lr()
        if self._cached_bytes < CACHE_BYTES:
            self._cache[index] = hr, lr
            self._cached_bytes += hr.nbytes + lr.nbytes
        return hr, lr


def to_tensor(image: ImageArray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def _turn(image: ImageArray, turns: int, flip: bool) -> ImageArray:
    image = np.rot90(image, turns)
    return image[:, ::-1] if flip else image
