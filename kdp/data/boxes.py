"""Images with bounding boxes, and the checks that all readers of such data share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from kdp.data.images import ImageArray
from kdp.errors import KdpError, join_names
from kdp.log import log_once

Boxes = npt.NDArray[np.float32]
"""(N, 4): x0, y0, x1, y1 in pixels; the first pixel spans 0 to 1."""
Labels = npt.NDArray[np.int64]
"""(N,): class indices."""
Rows = npt.NDArray[np.float64]
"""(N, 5): class, x0, y0, x1, y1 as in the file, in pixels."""

T = TypeVar("T", bound=Hashable)

TOLERANCE = 1.0
"""Pixels by which a box may extend beyond its image without a report; it is always clipped."""
NAMED = 3
"""Number of images that a log line names."""


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with its objects, read on demand.

    Attributes:
        name: how messages call the image.
        read: returns (H, W, 3) uint8 RGB; raises a KdpError if the file is missing or corrupt.
        boxes: (N, 4) float32: x0, y0, x1, y1 in pixels.
        labels: (N,) int64 class indices.
        files: that the image is read from; none where it is generated.
    """

    name: str
    read: Callable[[], ImageArray]
    boxes: Boxes
    labels: Labels
    files: tuple[Path, ...] = ()

    @property
    def annotation(self) -> str:
        """Classes and boxes, for `kdp.data.content`."""
        return f"{self.labels.tolist()} {self.boxes.tolist()}"


class DatasetIssues:
    """Collects defects of a data set by kind and reports them in one log line.

    Args:
        dataset: how the line calls the data set.
    """

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self._images: dict[str, list[str]] = {}

    def add(self, kind: str, name: str, count: int = 1) -> None:
        """Record `count` defects of a kind in the image of this name."""
        self._images.setdefault(kind, []).extend([name] * count)

    def report(self) -> None:
        """Log what was recorded, if anything; the same line is logged once per process."""
        if self._images:
            kinds = (
                f"{kind}: {len(names)} ({join_names(list(dict.fromkeys(names)), NAMED)})"
                for kind, names in self._images.items()
            )
            log_once(f"{self._dataset}: {'; '.join(kinds)}")


def without_repetitions(
    images: Iterable[T], issues: DatasetIssues, name: Callable[[T], str] = str
) -> list[T]:
    """The images of a list once each: what is evaluated twice would count twice.

    Args:
        images: names or paths.
        issues: where repetitions are recorded.
        name: of an image, for the record.
    """
    distinct: dict[T, None] = {}
    for image in images:
        if image in distinct:
            issues.add("images that are listed again, left out", name(image))
        distinct[image] = None
    return list(distinct)


def usable_boxes(
    rows: Rows, size: tuple[int, int], name: str, issues: DatasetIssues, min_side: float = 0.0
) -> tuple[Boxes, Labels]:
    """Clip boxes to the image and drop those that cannot be used.

    Boxes that are inverted, empty, outside the image or duplicates are dropped and recorded; boxes
    that are clipped by more than `TOLERANCE` are recorded.

    Args:
        rows: boxes of one image.
        size: height and width of the image.
        name: of the image.
        issues: where defects are recorded.
        min_side: sides must be longer than this; 1 for formats that count whole pixels.
    """
    height, width = size
    # Infinite and NaN corners become 0, which fails the area check below.
    corners = np.where(np.isfinite(rows[:, 1:]).all(1, keepdims=True), rows[:, 1:], 0)
    has_area = (corners[:, 2:] - corners[:, :2] > min_side).all(1)
    clipped = np.clip(corners, 0, (width, height, width, height))
    inside = (clipped[:, 2:] > clipped[:, :2]).all(1)
    shortened = (np.abs(clipped - corners) > TOLERANCE).any(1)
    # After clipping: two boxes that differ only outside the image are the same object.
    first = _is_first_occurrence(np.column_stack([rows[:, 0], clipped]))
    usable = has_area & inside & first
    for kind, affected in (
        ("boxes without area or inverted, left out", ~has_area),
        ("boxes outside the image, left out", has_area & ~inside),
        ("duplicate boxes, left out", has_area & inside & ~first),
        ("boxes clipped to the image", usable & shortened),
    ):
        if affected.any():
            issues.add(kind, name, int(affected.sum()))
    return clipped[usable].astype(np.float32), rows[usable, 0].astype(np.int64)


def _is_first_occurrence(rows: Rows) -> npt.NDArray[np.bool_]:
    first = np.zeros(len(rows), bool)
    first[np.unique(rows, axis=0, return_index=True)[1]] = True
    return first


def require_objects(images: Sequence[AnnotatedImage], dataset: str, classes: Sequence[str]) -> None:
    """Refuse a data set without objects.

    Raises:
        KdpError: no image has an object.
    """
    if not any(len(image.labels) for image in images):
        raise KdpError(f"{dataset} has no usable object; classes are {', '.join(classes)}")
