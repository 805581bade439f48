"""Where the faces of an image are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2

from kdp.data.images import ImageArray
from kdp.errors import KdpError
from kdp.tasks.labelled_boxes import Box

SEARCH_SIDE = 640
"""A larger image is searched at this length of its longer side: the cascade is slow."""
SMALLEST = 24
"""Side of the smallest face that the cascade was trained on, in pixels of the searched image."""
MARGIN = 0.1
"""Added to a box on every side, as a share of its side."""


CASCADE = "haarcascade_frontalface_default.xml"
PREFIXES = ("/usr", "/usr/local", sys.prefix)
FOLDERS = ("share/opencv4/haarcascades", "share/opencv/haarcascades", "share/OpenCV/haarcascades")
"""Where an OpenCV that is not of PyPI has its cascades: Debian (`opencv-data`), JetPack (below
/usr), a build of one's own (/usr/local), conda."""


class FaceFinder:
    """Finds frontal faces by OpenCV's Haar cascade.

    Raises:
        KdpError: there are no cascades, or this OpenCV cannot read them (version 5 dropped them).
    """

    def __init__(self) -> None:
        cascade = next(filter(None, map(_loaded, cascade_files())), None)
        if cascade is None:
            raise KdpError(
                f"OpenCV {cv2.__version__} has no Haar cascade of faces; install "
                "'opencv-python>=4.9,<5' (on Debian: apt install opencv-data), or classify whole "
                "images with --whole"
            )
        self._cascade = cascade

    def __call__(self, image: ImageArray) -> list[Box]:
        """Boxes of the faces in an RGB image, from left to right."""
        factor = max(1.0, max(image.shape[:2]) / SEARCH_SIDE)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if factor > 1:
            height, width = (max(1, round(side / factor)) for side in grey.shape)
            grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
        boxes = self._cascade.detectMultiScale(
            cv2.equalizeHist(grey), scaleFactor=1.1, minNeighbors=5, minSize=(SMALLEST, SMALLEST)
        )
        return sorted(_scaled(box, factor, image) for box in boxes)


def cascade_files() -> Iterator[Path]:
    """The cascade of this OpenCV's package, and where systems put it; those that exist."""
    package = getattr(getattr(cv2, "data", None), "haarcascades", None)
    folders = [Path(prefix, folder) for prefix in PREFIXES for folder in FOLDERS]
    for folder in [Path(package), *folders] if package else folders:
        if (folder / CASCADE).is_file():
            yield folder / CASCADE


def _loaded(file: Path) -> Any:
    """A cascade; None if OpenCV cannot read it."""
    try:
        cascade = cv2.CascadeClassifier(str(file))
        return None if cascade.empty() else cascade
    except (AttributeError, SystemError, cv2.error):  # a damaged file raises SystemError
        return None


def whole_image(image: ImageArray) -> list[Box]:
    """In place of a `FaceFinder`: one box around everything."""
    height, width = image.shape[:2]
    return [(0, 0, width, height)]


def cropped(image: ImageArray, box: Box) -> ImageArray:
    """The part of an image in a box and its margin, cut at the edges of the image."""
    left, top, width, height = box
    x, y = round(width * MARGIN), round(height * MARGIN)
    rows = slice(max(0, top - y), top + height + y)
    return image[rows, max(0, left - x) : left + width + x]


def _scaled(box: Sequence[int], factor: float, image: ImageArray) -> Box:
    """A box of a shrunk image, in pixels of the full one and within it."""
    left, top, width, height = (round(int(value) * factor) for value in box)
    across, down = image.shape[1] - left, image.shape[0] - top
    return left, top, min(width, across), min(height, down)
