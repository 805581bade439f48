"""Images that a classifier gets wrong, with what each network predicts."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from kdp.data.images import ImageArray
from kdp.tasks.captions import BLACK, RIGHT, WRONG, caption_strip

WIDTH = 320
"""Of the result, in pixels."""


def captioned(
    image: ImageArray,
    truth: str,
    labels: Sequence[str],
    predictions: Sequence[tuple[str, float]],
    note: str,
) -> ImageArray:
    """The whole image above its class and the predictions, right ones in green, wrong ones in red.

    Args:
        image: (H, W, 3) uint8 RGB; its proportions are kept.
        truth: its class.
        labels: names of the networks.
        predictions: class and probability by each network.
        note: which image of how many this is.
    """
    lines = [(f"is {truth}", BLACK)]
    for label, (name, probability) in zip(labels, predictions, strict=True):
        is_right = name == truth
        verdict, color = ("right", RIGHT) if is_right else ("WRONG", WRONG)
        lines.append((f"{verdict}  {label}: {name} {probability:.2f}", color))
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    shown = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_CUBIC)
    return np.concatenate([shown, caption_strip([*lines, (note, BLACK)], WIDTH)])
