"""Lines of text above or below an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdp.data.images import ImageArray
from kdp.tasks.lettering import Color, put_text, text_size

BLACK: Color = (0, 0, 0)
RIGHT: Color = (0, 120, 50)
WRONG: Color = (200, 30, 30)

LINE = 18
_LARGEST, _MARGIN = 0.45, 3


def caption_strip(lines: Sequence[tuple[str, Color]], width: int) -> ImageArray:
    """Lines of colored text on white: (LINE * number of lines, width, 3).

    A line that is too long is set smaller, so that nothing is cut off.
    """
    strip = np.full((LINE * len(lines), width, 3), 255, np.uint8)
    for row, (text, color) in enumerate(lines, 1):
        start = (_MARGIN, LINE * row - 5)
        size = fitting_size(text, width - 2 * _MARGIN, _LARGEST)
        put_text(strip, text, start, size, color)
    return strip


def fitting_size(text: str, width: int, largest: float) -> float:
    """The font size at which a text is at most `width` pixels wide, up to `largest`."""
    full = text_size(text, 1.0)[0][0]
    return min(largest, width / max(full, 1))
