"""Images with boxes around their objects, and what readers of such data have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdp.data.images import ImageArray
from kdp.errors import KdpError, join_names
from kdp.log import log_once

Boxes = npt.NDArray[np.float32]
"""(N, 4): x0, y0, x1, y1 in pixels; the first pixel reaches from 0 to 1."""
Labels = npt.NDArray[np.int64]
"""(N,): indices of classes."""
Rows = npt.NDArray[np.float64]
"""(N, 5): class, x0, y0, x1, y1 as a file has them, in pixels."""

TOLERANCE = 1.0
"""How far a box may stick out of its image without a word, in pixels; it is cut all the same."""
NAMED = 3
"""How many images a line names."""
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""Tag of EXIF, and those of its values that exchange width and height."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its objects.

    Attributes:
        name: of the image.
        read: gives (H, W, 3) uint8 RGB; a KdpError names an image that is missing or corrupt.
        boxes: (N, 4) float32: x0, y0, x1, y1 in pixels.
        labels: (N,) int64, indices of classes.
    """

    name: str
    read: Callable[[], ImageArray]
    boxes: Boxes
    labels: Labels


class DatasetIssues:
    """What is wrong with a data set: collected by kind, and told in one line.

    Args:
        where: the data set.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, name: str, count: int = 1) -> None:
        """`count` faults of a kind in an image."""
        self._found.setdefault(kind, []).extend([name] * count)

    def tell(self) -> None:
        """Say what was found, if anything; the same line only once."""
        if self._found:
            kinds = (
                f"{kind}: {len(at)} ({join_names(list(dict.fromkeys(at)), NAMED)})"
                for kind, at in self._found.items()
            )
            log_once(f"{self._where}: {'; '.join(kinds)}")


def checked(
    rows: Rows, size: tuple[int, int], name: str, faults: DatasetIssues, least: float = 0.0
) -> tuple[Boxes, Labels]:
    """The boxes that can be used, cut to the image.

    Those that are inverted, have no area or lie outside, and those that repeat another, are counted
    and left out; those that are cut by more than `TOLERANCE` are counted.

    Args:
        rows: the boxes of one image.
        size: height and width of the image.
        name: of the image.
        faults: counts.
        least: a side of this length or less is none (1 where a file counts whole pixels).
    """
    height, width = size
    corners = np.where(np.isfinite(rows[:, 1:]).all(1, keepdims=True), rows[:, 1:], 0)
    solid = (corners[:, 2:] - corners[:, :2] > least).all(1)
    cut = np.clip(corners, 0, (width, height, width, height))
    inside = (cut[:, 2:] > cut[:, :2]).all(1)
    shortened = (np.abs(cut - corners) > TOLERANCE).any(1)
    first = _first_of_its_kind(np.column_stack([rows[:, 0], cut]))
    good = solid & inside & first
    for kind, bad in (
        ("boxes without area or inverted, left out", ~solid),
        ("boxes outside the image, left out", solid & ~inside),
        ("boxes given twice, left out once", solid & inside & ~first),
        ("boxes cut to the image", good & shortened),
    ):
        if bad.any():
            faults.add(kind, name, int(bad.sum()))
    return cut[good].astype(np.float32), rows[good, 0].astype(np.int64)


def _first_of_its_kind(rows: Rows) -> npt.NDArray[np.bool_]:
    first = np.zeros(len(rows), bool)
    first[np.unique(rows, axis=0, return_index=True)[1]] = True
    return first


def image_size(path: Path) -> tuple[int, int]:
    """Height and width as `read_rgb` gives them, from the head of the file alone.

    Raises:
        KdpError: missing, corrupt or of a kind that is not supported, by name.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # OpenCV turns images as EXIF says; Pillow does so too, but only with TIFF.
            turned = "exif" in image.info and image.getexif().get(ORIENTATION) in TURNED
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise KdpError(f"cannot read the image {path}: it is missing or corrupt") from error
    return (width, height) if turned else (height, width)


def require_objects(images: Sequence[AnnotatedImage], where: str, classes: Sequence[str]) -> None:
    """Refuse a data set that has nothing to find.

    Raises:
        KdpError: no image has an object.
    """
    if not any(len(one.labels) for one in images):
        raise KdpError(f"{where} has no object that can be used; classes are {', '.join(classes)}")
