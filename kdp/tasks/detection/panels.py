"""Detections of several networks in one image, side by side, judged against the true boxes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from kdp.data.images import ImageArray
from kdp.tasks.captions import BLACK, RIGHT, WRONG, caption_strip, fitting_size
from kdp.tasks.labelled_boxes import Box, LabelledBox
from kdp.tasks.lettering import Color, put_text, text_size

IOU = 0.5
"""From this overlap with a true box of its class on, a detection is right."""
MISSED: Color = (230, 130, 0)
MIN_WIDTH = 320
"""A smaller image is enlarged to it, so that its labels can be read."""


def side_by_side(
    image: ImageArray,
    truth: Sequence[LabelledBox],
    labels: Sequence[str],
    detections: Sequence[Sequence[LabelledBox]],
    note: str,
) -> ImageArray:
    """A panel for each network: right detections green, wrong ones red, missed objects orange.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: the objects in it.
        labels: names of the networks.
        detections: of each network, the most confident first.
        note: which image of how many this is.
    """
    factor = max(1.0, MIN_WIDTH / image.shape[1])
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    large = image
    if factor > 1:
        large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
    panels = [
        _panel(large, factor, truth, boxes, label)
        for label, boxes in zip(labels, detections, strict=True)
    ]
    row = np.concatenate(panels, axis=1)
    key = f"{note}; green right (IoU {IOU} or more), red wrong, orange missed"
    return np.concatenate([row, caption_strip([(key, BLACK)], row.shape[1])])


def judge(
    truth: Sequence[LabelledBox], boxes: Sequence[LabelledBox]
) -> tuple[list[bool], list[bool]]:
    """Whether each detection is right, and whether each true box is detected.

    As in average precision: the most confident detection takes the true box of its class that it
    overlaps most, and a true box is taken once.
    """
    detected = [False] * len(truth)
    right = []
    for box in boxes:
        overlaps = [
            0.0 if taken or true.label != box.label else _iou(true.box, box.box)
            for true, taken in zip(truth, detected, strict=True)
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        right.append(best >= 0 and overlaps[best] >= IOU)
        if right[-1]:
            detected[best] = True
    return right, detected


def _panel(
    image: ImageArray,
    factor: float,
    truth: Sequence[LabelledBox],
    boxes: Sequence[LabelledBox],
    label: str,
) -> ImageArray:
    right, detected = judge(truth, boxes)
    canvas = image.copy()
    missed = [true for true, is_detected in zip(truth, detected, strict=True) if not is_detected]
    for true in missed:
        _draw(canvas, true, true.name, factor, MISSED)
    for box, is_right in zip(boxes, right, strict=True):
        text = f"{box.name} {box.probability:.2f}"
        _draw(canvas, box, text, factor, RIGHT if is_right else WRONG)
    counts = f"{sum(right)} right, {len(boxes) - sum(right)} wrong, {len(missed)} missed"
    head = caption_strip([(label, BLACK), (counts, BLACK)], canvas.shape[1])
    return np.concatenate([head, canvas])


def _draw(canvas: ImageArray, box: LabelledBox, text: str, factor: float, color: Color) -> None:
    left, top, width, height = (round(side * factor) for side in box.box)
    cv2.rectangle(canvas, (left, top), (left + width - 1, top + height - 1), color, 2)
    size = fitting_size(text, canvas.shape[1] - 4, 0.4)
    (text_width, text_height), below = text_size(text, size)
    # Above the box, but within the image.
    x = max(0, min(left, canvas.shape[1] - text_width))
    y = max(text_height + 2, top - below)
    cv2.rectangle(canvas, (x, y - text_height - 2), (x + text_width, y + below), color, cv2.FILLED)
    put_text(canvas, text, (x, y), size, (255, 255, 255))


def _iou(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / max(a[2] * a[3] + b[2] * b[3] - common, 1)
