"""How well objects are found: average precision, as COCO and Ultralytics measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdp.models.ultralytics import import_ultralytics

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Intersection over union (IoU) from which on a box counts as found."""
Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Boxes:
    """Objects in one image, found or true.

    Attributes:
        corners: (N, 4) x0, y0, x1, y1 in pixels.
        labels: (N,) indices of classes.
        scores: (N,) probabilities, falling; ones of the ground truth.
    """

    corners: Tensor
    labels: Tensor
    scores: Tensor


def nms(decoded_BCA: Tensor, least: float, overlap: float, most: int = 300) -> list[Boxes]:
    """Boxes that do not overlap one of their class with a higher score.

    Args:
        decoded_BCA: centre x, y, width, height, and a probability of each class; see
            `kdp.models.yolo11.decode`.
        least: probability.
        overlap: IoU from which on the lesser of two boxes goes.
        most: boxes of an image.
    """
    # Its limit of time would make results depend on the machine.
    found = import_ultralytics("utils.nms").non_max_suppression(
        decoded_BCA, least, overlap, multi_label=True, max_det=most, max_time_img=1e9
    )
    return [Boxes(rows[:, :4], rows[:, 5].long(), rows[:, 4]) for rows in found]


def average_precision(
    found: Sequence[Boxes], truth: Sequence[Boxes], classes: Sequence[str]
) -> dict[str, float]:
    """Mean average precision at IoU 0.5 and over 0.5 to 0.95, and the latter of each class (0..1).

    A class without an object is left out.
    """
    right = [_right(mine, true) for mine, true in zip(found, truth, strict=True)]
    labels, scores = (
        torch.cat([getattr(mine, key) for mine in found]).cpu().numpy()
        for key in ("labels", "scores")
    )
    true = torch.cat([one.labels for one in truth]).cpu().numpy()
    there = np.unique(true)
    table = np.zeros((len(there), len(THRESHOLDS)))
    if len(labels):
        *_, table, there = import_ultralytics("utils.metrics").ap_per_class(
            np.concatenate(right), scores, labels, true
        )[:7]
    each = {classes[int(i)]: float(row.mean()) for i, row in zip(there, table, strict=True)}
    return {
        "map50_95": float(table.mean()) if len(table) else 0.0,
        "map50": float(table[:, 0].mean()) if len(table) else 0.0,
        **{f"ap {name}": each[name] for name in classes if name in each},
    }


def _right(found: Boxes, truth: Boxes) -> Right:
    """Which boxes meet an object of their class, by threshold: (N, thresholds).

    The best score comes first and takes the object it overlaps most of those not taken.
    """
    overlap = import_ultralytics("utils.metrics").box_iou(truth.corners, found.corners)
    overlap = overlap * (truth.labels[:, None] == found.labels[None])
    table = overlap.cpu().numpy()
    right = np.zeros((len(found.labels), len(THRESHOLDS)), bool)
    taken = np.zeros((len(truth.labels), len(THRESHOLDS)), bool)
    if not len(taken):
        return right
    for number in np.flatnonzero(table.max(0) >= THRESHOLDS[0]):
        free = np.where(taken, 0.0, table[:, number, None])
        best = free.argmax(0)
        right[number] = free[best, range(len(THRESHOLDS))] >= THRESHOLDS
        taken[best[right[number]], right[number].nonzero()[0]] = True
    return right
