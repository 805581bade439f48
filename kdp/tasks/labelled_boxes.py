"""Labelled boxes in an image, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2

from kdp.data.images import ImageArray
from kdp.tasks.lettering import put_text, text_size

Box = tuple[int, int, int, int]
"""Left, top, width, height, in pixels."""

COLORS = ((60, 180, 75), (230, 60, 50), (0, 130, 200), (245, 130, 48), (145, 30, 180))
"""RGB, by class."""


@dataclass(frozen=True)
class LabelledBox:
    """A part of an image and its class.

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
        """For JSON, which has no NaN."""
        probability = None if math.isnan(self.probability) else round(self.probability, 4)
        return {"box": list(self.box), "class": self.name, "probability": probability}


@dataclass(frozen=True)
class LabelledBoxes:
    """A `kdp.tasks.predictor.ImagePrediction` that is drawn as boxes.

    Attributes:
        source: the RGB image.
        boxes: in the order to report them.
        noun: key of the boxes in JSON: "faces", "objects".
        part_ms: milliseconds by part of the work.
    """

    source: ImageArray
    boxes: Sequence[LabelledBox]
    noun: str
    part_ms: Mapping[str, float] = field(default_factory=dict)

    def image(self, caption: str) -> ImageArray:
        return draw_boxes(self.source, self.boxes, caption)

    def plain(self) -> dict[str, Any]:
        return {self.noun: [box.plain() for box in self.boxes]}


def draw_boxes(image: ImageArray, boxes: Sequence[LabelledBox], caption: str) -> ImageArray:
    """A copy of an RGB image with labelled boxes, and a caption in its lower left corner."""
    canvas = image.copy()
    size = max(0.35, min(canvas.shape[:2]) / 900)
    for labelled in boxes:
        left, top, width, height = labelled.box
        color = COLORS[labelled.label % len(COLORS)]
        corner = (left + width - 1, top + height - 1)
        cv2.rectangle(canvas, (left, top), corner, color, max(1, round(2 * size)))
        _write(canvas, f"{labelled.name} {labelled.probability:.2f}", (left, top), size, color)
    _write(canvas, caption, (0, canvas.shape[0]), size, (40, 40, 40))
    return canvas


def _write(
    canvas: ImageArray, text: str, corner: tuple[int, int], size: float, color: tuple[int, int, int]
) -> None:
    """White text on a bar whose lower left corner is `corner`, moved into the image."""
    (width, height), below = text_size(text, size)
    bar = height + below + 4
    left = max(0, min(corner[0], canvas.shape[1] - width))
    bottom = max(corner[1], bar)
    cv2.rectangle(canvas, (left, bottom - bar), (left + width, bottom), color, cv2.FILLED)
    start = (left, bottom - below - 2)
    put_text(canvas, text, start, size, (255, 255, 255))
