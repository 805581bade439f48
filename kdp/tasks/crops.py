"""Side-by-side crops of super-resolved pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from kdp.data.resize import bicubic_uint8
from kdp.measure.quality import luma, psnr

CROP, ZOOM = 64, 4
"""Side of the crop in HR pixels, and how much larger it is shown (nearest neighbour)."""

_GAP, _LINE, _FONT = 4, 18, cv2.FONT_HERSHEY_SIMPLEX


def comparison(
    lr: np.ndarray, outputs: Mapping[str, np.ndarray], hr: np.ndarray, scale: int
) -> np.ndarray:
    """Bicubic, the outputs and HR in a row, captioned with their PSNR on Y of the whole picture.

    Args:
        lr: (h, w, 3) uint8.
        outputs: captions and (scale*h, scale*w, 3) uint8 pictures.
        hr: (scale*h, scale*w, 3) uint8.
        scale: HR side divided by LR side; also the border that PSNR leaves out.
    """
    upscaled = {"bicubic": bicubic_uint8(lr, scale), **outputs}
    top, left = most_different(hr, list(upscaled.values()), CROP)
    panels = [
        _panel(image[top : top + CROP, left : left + CROP], (name, _psnr(image, hr, scale)))
        for name, image in upscaled.items()
    ]
    return _row([*panels, _panel(hr[top : top + CROP, left : left + CROP], ("HR", ""))])


def most_different(hr: np.ndarray, others: Sequence[np.ndarray], size: int) -> tuple[int, int]:
    """Top and left of the square where the luma of the others differs most from HR (squares)."""
    error = np.mean([(luma(image) - luma(hr)) ** 2 for image in others], axis=0)
    height, width = (min(size, side) for side in error.shape)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]) + sums[
        :-height, :-width
    ]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left)


def _psnr(image: np.ndarray, hr: np.ndarray, scale: int) -> str:
    return f"{psnr(image, hr, scale):.2f} dB"


def _panel(crop: np.ndarray, caption: tuple[str, str]) -> np.ndarray:
    """The enlarged crop under two lines of text."""
    enlarged = crop.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    width = enlarged.shape[1]
    head = np.full((2 * _LINE + _GAP, width, 3), 255, np.uint8)
    for i, text in enumerate(caption):
        needed = cv2.getTextSize(text, _FONT, 1.0, 1)[0][0]
        size = min(0.5, (width - 2) / max(needed, 1))
        cv2.putText(head, text, (1, (i + 1) * _LINE - 4), _FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, enlarged])


def _row(panels: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((len(panels[0]), _GAP, 3), 255, np.uint8)
    pieces = [piece for panel in panels for piece in (gap, panel)]
    return np.concatenate(pieces[1:], axis=1)
