"""Side-by-side crops of super-resolved images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdp.data.resize import bicubic_uint8
from kdp.measure.image_quality import luma, psnr
from kdp.tasks.captions import BLACK, caption_strip

CROP, ZOOM = 64, 4
"""Side of the crop in HR pixels, and how much larger it is shown (nearest neighbour)."""

_GAP = 4


def comparison(
    lr: np.ndarray, outputs: Mapping[str, np.ndarray], hr: np.ndarray, scale: int, note: str
) -> np.ndarray:
    """Bicubic, the outputs and HR in a row, captioned with their PSNR on Y of the whole image.

    Args:
        lr: (h, w, 3) uint8.
        outputs: captions and (scale*h, scale*w, 3) uint8 images.
        hr: (scale*h, scale*w, 3) uint8.
        scale: HR side divided by LR side; also the border that PSNR leaves out.
        note: which image of how many this is.
    """
    upscaled = {"bicubic": bicubic_uint8(lr, scale), **outputs}
    top, left = most_different(hr, list(upscaled.values()), CROP)
    window = (slice(top, top + CROP), slice(left, left + CROP))
    panels = [
        _panel(image[window], (name, f"{psnr(image, hr, scale):.2f} dB"))
        for name, image in upscaled.items()
    ]
    height, width = hr[window].shape[:2]
    row = _row([*panels, _panel(hr[window], ("HR", "PSNR of the whole image"))])
    crop = f"crop of {width}x{height} pixels at ({left}, {top}) of {hr.shape[1]}x{hr.shape[0]}"
    foot = f"{note}; {crop}, where the outputs differ most from HR"
    return np.concatenate([row, caption_strip([(foot, BLACK)], row.shape[1])])


def most_different(hr: np.ndarray, others: Sequence[np.ndarray], size: int) -> tuple[int, int]:
    """Top and left of the square where the luma of the others differs most from HR (squares)."""
    error = np.mean([(luma(image) - luma(hr)) ** 2 for image in others], axis=0)
    height, width = (min(size, side) for side in error.shape)
    # A summed-area table: the sum of any window is four of its entries.
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]) + sums[
        :-height, :-width
    ]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def _panel(crop: np.ndarray, caption: tuple[str, str]) -> np.ndarray:
    """The enlarged crop under two lines of text."""
    enlarged = crop.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    head = caption_strip([(text, BLACK) for text in caption], enlarged.shape[1])
    return np.concatenate([head, enlarged])


def _row(panels: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((len(panels[0]), _GAP, 3), 255, np.uint8)
    pieces = [piece for panel in panels for piece in (gap, panel)]
    return np.concatenate(pieces[1:], axis=1)
