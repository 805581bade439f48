"""Labelled boxes of a picture, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2

from kdp.data.images import ImageArray

Box = tuple[int, int, int, int]
"""Left, top, width, height, in pixels."""

COLORS = ((60, 180, 75), (230, 60, 50), (0, 130, 200), (245, 130, 48), (145, 30, 180))
"""RGB, by class."""
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class LabelledBox:
    """A part of a picture and what it shows.

    Attributes:
        box: where it is.
        label: index of the class.
        name: of the class.
        probability: of the class, 0..1.
    """

    box: Box
    label: int
    name: str
    probability: float

    def plain(self) -> dict[str, Any]:
        """For JSON, which knows no NaN."""
        shown = None if math.isnan(self.probability) else round(self.probability, 4)
        return {"box": list(self.box), "class": self.name, "probability": shown}


def drawn(picture: ImageArray, boxes: Sequence[LabelledBox], note: str) -> ImageArray:
    """A copy of an RGB picture with labelled boxes, and a note below."""
    canvas = picture.copy()
    size = max(0.35, min(canvas.shape[:2]) / 900)
    for one in boxes:
        left, top, width, height = one.box
        color = COLORS[one.label % len(COLORS)]
        corner = (left + width - 1, top + height - 1)
        cv2.rectangle(canvas, (left, top), corner, color, max(1, round(2 * size)))
        _write(canvas, f"{one.name} {one.probability:.2f}", (left, top), size, color)
    _write(canvas, note, (0, canvas.shape[0]), size, (40, 40, 40))
    return canvas


def _write(
    canvas: ImageArray, text: str, place: tuple[int, int], size: float, color: tuple[int, int, int]
) -> None:
    """White on a bar whose lower left corner is `place`, moved into the picture."""
    (width, height), below = cv2.getTextSize(text, FONT, size, 1)
    bar = height + below + 4
    left = max(0, min(place[0], canvas.shape[1] - width))
    bottom = max(place[1], bar)
    cv2.rectangle(canvas, (left, bottom - bar), (left + width, bottom), color, cv2.FILLED)
    start = (left, bottom - below - 2)
    cv2.putText(canvas, text, start, FONT, size, (255, 255, 255), 1, cv2.LINE_AA)
