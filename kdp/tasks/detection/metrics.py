"""Non-maximum suppression and average precision, by Ultralytics' implementations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdp.models.ultralytics import import_ultralytics

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Intersection over union (IoU) from which on a detection matches an object, as COCO defines it."""
Matches = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Detections:
    """Detected or true objects of one image.

    Attributes:
        corners: (N, 4) x0, y0, x1, y1 in pixels.
        labels: (N,) class indices.
        scores: (N,) probabilities in falling order; ones for true objects.
    """

    corners: Tensor
    labels: Tensor
    scores: Tensor


def nms(
    decoded_BCA: Tensor, conf_threshold: float, iou_threshold: float, max_det: int = 300
) -> list[Detections]:
    """Non-maximum suppression within each class; one result per image.

    Args:
        decoded_BCA: centre x, y, width, height, and the probability of each class; see
            `kdp.models.yolo11.decode`.
        conf_threshold: lowest probability.
        iou_threshold: IoU from which on the less probable of two boxes is suppressed.
        max_det: most boxes per image.
    """
    # The default time limit would make results depend on the machine.
    images = import_ultralytics("utils.nms").non_max_suppression(
        decoded_BCA,
        conf_threshold,
        iou_threshold,
        multi_label=True,
        max_det=max_det,
        max_time_img=1e9,
    )
    return [Detections(rows[:, :4], rows[:, 5].long(), rows[:, 4]) for rows in images]


def average_precision(
    detections: Sequence[Detections], truth: Sequence[Detections], classes: Sequence[str]
) -> dict[str, float]:
    """Mean average precision at IoU 0.5 and over 0.5 to 0.95, and the latter of each class (0..1).

    Args:
        detections: of each image.
        truth: true objects of each image.
        classes: class names. A class without true objects is left out.
    """
    matches = [_matches(image, true) for image, true in zip(detections, truth, strict=True)]
    labels, scores = (
        torch.cat([getattr(image, key) for image in detections]).cpu().numpy()
        for key in ("labels", "scores")
    )
    true_labels = torch.cat([image.labels for image in truth]).cpu().numpy()
    present = np.unique(true_labels)
    table = np.zeros((len(present), len(IOU_THRESHOLDS)))
    if len(labels):  # ap_per_class fails without detections
        *_, table, present = import_ultralytics("utils.metrics").ap_per_class(
            np.concatenate(matches), scores, labels, true_labels
        )[:7]
    per_class = {classes[int(i)]: float(row.mean()) for i, row in zip(present, table, strict=True)}
    return {
        "map50_95": float(table.mean()) if len(table) else 0.0,
        "map50": float(table[:, 0].mean()) if len(table) else 0.0,
        **{f"ap {name}": per_class[name] for name in classes if name in per_class},
    }


def _matches(detections: Detections, truth: Detections) -> Matches:
    """Whether each detection matches an object of its class, per threshold: (N, thresholds).

    As in COCO, detections choose in falling order of score, and each takes the free object that it
    overlaps most; an object that is taken at one threshold may be free at a higher one.
    """
    iou = import_ultralytics("utils.metrics").box_iou(truth.corners, detections.corners)
    iou = iou * (truth.labels[:, None] == detections.labels[None])
    table = iou.cpu().numpy()
    matches = np.zeros((len(detections.labels), len(IOU_THRESHOLDS)), bool)
    taken = np.zeros((len(truth.labels), len(IOU_THRESHOLDS)), bool)
    if not len(taken):
        return matches
    for number in np.flatnonzero(table.max(0) >= IOU_THRESHOLDS[0]):
        free = np.where(taken, 0.0, table[:, number, None])
        best = free.argmax(0)
        matches[number] = free[best, range(len(IOU_THRESHOLDS))] >= IOU_THRESHOLDS
        taken[best[matches[number]], matches[number].nonzero()[0]] = True
    return matches
