"""Where frames go: a video file or a window."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from kdp.data.images import Picture
from kdp.errors import KdpError

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""What every OpenCV with FFmpeg can write."""
ESCAPE = 27


class VideoFile:
    """Write a video; a context that puts it in its place at the end, and drops it on an error.

    Frames are made even in width and height (the last column or row is repeated), which codecs
    need, and a frame of another size than the first is resized to it.

    Args:
        path: its suffix decides the codec, see `CODECS`.

    Raises:
        KdpError: a suffix that is not known, or the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in CODECS:
            raise KdpError(f"cannot write {path}: a video ends in {', '.join(CODECS)}")
        self.path, self.count = path, 0
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix.lower()}")
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, picture: Picture, rate: float, seconds: float | None = None) -> None:
        """Append an RGB picture.

        Args:
            picture: (H, W, 3) uint8.
            rate: frames per second; that of the first call counts.
            seconds: when it was seen. The frame before is repeated until then, so that a camera
                slower than `rate` plays as fast as it was.
        """
        height, width = picture.shape[:2]
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._begin((even.shape[1], even.shape[0]), rate)
        frame = cv2.cvtColor(even, cv2.COLOR_RGB2BGR)
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        due = self.count if seconds is None else math.floor(seconds * self._rate)
        while self.count < due:
            self._append(self._last)
        self._append(frame)

    def _begin(self, size: tuple[int, int], rate: float) -> None:
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._temporary), codec, rate, size)
        self._size, self._rate = size, rate
        self._last = np.zeros((size[1], size[0], 3), np.uint8)
        if not self._writer.isOpened():
            raise KdpError(f"cannot write {self.path}: OpenCV cannot encode {size[0]}x{size[1]}")

    def _append(self, frame: Any) -> None:
        self._writer.write(frame)
        self._last, self.count = frame, self.count + 1

    def __enter__(self) -> VideoFile:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch()
        except OSError as error:
            raise KdpError(f"cannot write {self.path}: {error.strerror}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        try:
            if kind is None and self.count:
                self._finish()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not cv2.VideoCapture(str(self._temporary)).read()[0]:
            raise KdpError(f"cannot write {self.path}: it is cut short; is the disk full?")
        with self._temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self._temporary, self.path)


class Window:
    """Show frames; `show` is False once the user has closed the window or pressed q or Escape.

    Raises:
        KdpError: there is no display.
    """

    def __init__(self, title: str = "kdp infer: q ends it") -> None:
        if sys.platform == "linux" and not os.environ.get("DISPLAY"):
            raise KdpError("there is no display here; --headless prints JSON lines instead")
        self.title = title

    def show(self, picture: Picture) -> bool:
        try:
            cv2.imshow(self.title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            key = cv2.waitKey(1) & 0xFF
            visible = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error as error:
            raise KdpError("this OpenCV was built without windows; use --headless") from error
        return visible and key not in (ord("q"), ESCAPE)

    def close(self) -> None:
        with suppress(cv2.error):
            cv2.destroyAllWindows()
