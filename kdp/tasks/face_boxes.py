"""Faces in a picture: where they are, and what the classifier says of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
from torch import nn

from kdp.data.images import ImageArray
from kdp.errors import KdpError
from kdp.tasks.classification import Classification
from kdp.tasks.labelled_boxes import Box, LabelledBox

SEARCH_SIDE = 640
"""A larger picture is searched at this length of its longer side."""
SMALLEST = 24
"""Side of the smallest face the cascade knows, in pixels of the searched picture."""
MARGIN = 0.1
"""What a crop takes on every side, of the box's side."""


class FaceFinder:
    """Frontal faces by OpenCV's Haar cascade.

    Raises:
        KdpError: this OpenCV has no cascades (version 5 has none).
    """

    def __init__(self) -> None:
        try:
            folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]
            file = folder / "haarcascade_frontalface_default.xml"
            self._cascade = cv2.CascadeClassifier(str(file))
            empty = self._cascade.empty()
        except (AttributeError, cv2.error):
            empty = True
        if empty:
            raise KdpError(
                f"OpenCV {cv2.__version__} has no Haar cascade of faces; install "
                "'opencv-python>=4.9,<5', or classify whole pictures with --whole"
            )

    def __call__(self, picture: ImageArray) -> list[Box]:
        """Boxes within an RGB picture, from left to right."""
        factor = max(1.0, max(picture.shape[:2]) / SEARCH_SIDE)
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if factor > 1:
            height, width = (max(1, round(side / factor)) for side in grey.shape)
            grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
        found = self._cascade.detectMultiScale(
            cv2.equalizeHist(grey), scaleFactor=1.1, minNeighbors=5, minSize=(SMALLEST, SMALLEST)
        )
        return sorted(_scaled(box, factor, picture) for box in found)


class WholePicture:
    """In place of a `FaceFinder`: one box, the whole picture."""

    def __call__(self, picture: ImageArray) -> list[Box]:
        height, width = picture.shape[:2]
        return [(0, 0, width, height)]


class FaceLabeller:
    """Find and classify.

    Args:
        model: a classifier, on its device.
        task: of the model.
        find: where to look.
    """

    def __init__(
        self, model: nn.Module, task: Classification, find: FaceFinder | WholePicture
    ) -> None:
        self._model, self._task, self._find = model, task, find

    def __call__(self, picture: ImageArray) -> list[LabelledBox]:
        """The faces of an RGB picture, from left to right."""
        boxes = self._find(picture)
        if not boxes:
            return []
        said = self._task.predict(self._model, [cropped(picture, box) for box in boxes])
        return [
            LabelledBox(box, int(p.argmax()), self._task.classes[int(p.argmax())], float(p.max()))
            for box, p in zip(boxes, said, strict=True)
        ]


def cropped(picture: ImageArray, box: Box) -> ImageArray:
    """A box with its margin, as far as the picture goes."""
    left, top, width, height = box
    x, y = round(width * MARGIN), round(height * MARGIN)
    rows = slice(max(0, top - y), top + height + y)
    return picture[rows, max(0, left - x) : left + width + x]


def _scaled(box: Sequence[int], factor: float, picture: ImageArray) -> Box:
    """A box found in a shrunk picture, in pixels of the picture."""
    left, top, width, height = (round(int(value) * factor) for value in box)
    across, down = picture.shape[1] - left, picture.shape[0] - top
    return left, top, min(width, across), min(height, down)
