"""Text in images, in any alphabet: OpenCV's own font has ASCII alone and draws "?" for the rest."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kdp.data.images import ImageArray

Color = tuple[int, int, int]
FONT = cv2.FONT_HERSHEY_SIMPLEX
PIXELS = 30
"""Size in pixels of the font that is as high as OpenCV's at scale 1."""


def text_size(text: str, scale: float) -> tuple[tuple[int, int], int]:
    """(width, height) of a text, and the pixels below its baseline.

    Args:
        text: on one line.
        scale: of OpenCV's font.
    """
    if text.isascii():
        (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
        return (width, height), below
    text, font = _font(text, scale)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    return (math.ceil(right - min(left, 0)), math.ceil(max(-top, 0))), math.ceil(max(bottom, 0))


def put_text(
    canvas: ImageArray, text: str, start: tuple[int, int], scale: float, color: Color
) -> None:
    """Draw a text into an RGB image, in place.

    Args:
        canvas: (H, W, 3) uint8.
        text: on one line.
        start: (x, y) of the left end of its baseline.
        scale: of OpenCV's font.
        color: RGB.
    """
    if text.isascii():
        cv2.putText(canvas, text, start, FONT, scale, color, 1, cv2.LINE_AA)
        return
    image = Image.fromarray(canvas)
    text, font = _font(text, scale)
    ImageDraw.Draw(image).text(start, text, color, font, anchor="ls")
    canvas[:] = np.asarray(image)


def _font(text: str, scale: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """A font that has all of a text; without one, the text with its characters' numbers."""
    path = _font_file(frozenset(text) - {" "})
    if path is None:
        text, path = text.encode("ascii", "backslashreplace").decode(), next(_font_files())
    return text, ImageFont.truetype(path, max(1, round(PIXELS * scale)))


@functools.cache
def _font_file(characters: frozenset[str]) -> str | None:
    return next((path for path in _font_files() if characters <= _alphabet(path)), None)


def _font_files() -> Iterator[str]:
    """Matplotlib's own font, which is always there, and those of the system."""
    from matplotlib import font_manager, get_data_path  # slow to import

    yield f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    yield from sorted(font_manager.findSystemFonts())


@functools.cache
def _alphabet(path: str) -> frozenset[str]:
    """The characters of a font; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
