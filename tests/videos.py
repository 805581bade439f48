"""Frames and videos for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kdp.data.images import ImageArray


def blank(size: tuple[int, int] = (256, 256)) -> ImageArray:
    return np.full((*size, 3), 90, np.uint8)


def frames_of(path: Path) -> tuple[list[Any], float]:
    """Frames of a video, and its frames per second."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)
