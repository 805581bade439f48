"""Where frames go: a video file or a window."""

from __future__ import annotations

import math
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from kdp.data.images import ImageArray
from kdp.errors import KdpError

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""What every OpenCV with FFmpeg can write."""
DIGITS = 2
"""Of frames per second: the mpeg4 codec has 16 bits for the denominator."""
ESCAPE = 27


class VideoFile:
    """Write a video; a context that puts it in its place at the end, and drops it on an error.

    Frames are made even in width and height (the last column or row is repeated), which codecs
    need, and a frame of another size than the first is resized to it.

    Args:
        path: its suffix decides the codec, see `CODECS`.

    Raises:
        KdpError: a suffix that is not known, or the file cannot be written or became too short.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in CODECS:
            raise KdpError(f"cannot write {path}: a video ends in {', '.join(CODECS)}")
        self.path, self.count = path, 0
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix.lower()}")
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, picture: ImageArray, rate: float, seconds: float | None = None) -> None:
        """Append an RGB picture.

        Args:
            picture: (H, W, 3) uint8.
            rate: frames per second; that of the first call counts.
            seconds: when it was seen. The frame before is repeated until then, and a frame whose
                place is taken is left out, so that a camera slower or faster than `rate` plays as
                fast as it was.
        """
        height, width = picture.shape[:2]
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._begin((even.shape[1], even.shape[0]), rate)
        # The nearest place: a camera a little early now and then loses no frame.
        due = self.count if seconds is None else math.floor(seconds * self._rate + 0.5)
        while self.count < due:
            self._append(self._last)
        if self.count == due:
            self._append(self._fitting(cv2.cvtColor(even, cv2.COLOR_RGB2BGR)))

    def _fitting(self, frame: Any) -> Any:
        if (frame.shape[1], frame.shape[0]) == self._size:
            return frame
        return cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)

    def _begin(self, size: tuple[int, int], rate: float) -> None:
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        self._size, self._rate = size, round(rate, DIGITS)
        self._writer = cv2.VideoWriter(str(self._temporary), codec, self._rate, size)
        self._last = np.zeros((size[1], size[0], 3), np.uint8)
        if not self._writer.isOpened():
            raise KdpError(f"cannot write {self.path}: OpenCV cannot encode {size[0]}x{size[1]}")

    def _append(self, frame: Any) -> None:
        self._writer.write(frame)
        self._last, self.count = frame, self.count + 1

    def __enter__(self) -> VideoFile:
        if self.path.is_dir():
            raise KdpError(f"cannot write {self.path}: it is a folder")
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
        if _frames_in(self._temporary) < self.count:
            raise KdpError(f"cannot write {self.path}: it is cut short; is the disk full?")
        try:
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
        except OSError as error:
            raise KdpError(f"cannot write {self.path}: {error.strerror}") from error


def _frames_in(path: Path) -> int:
    """How many frames can be read; OpenCV says nothing where it could not write one."""
    capture, count = cv2.VideoCapture(str(path)), 0
    try:
        while capture.grab():
            count += 1
    finally:
        capture.release()
    return count


class Window:
    """Show frames; `show` is False once the user has closed the window or pressed q or Escape.

    Raises:
        KdpError: there is no display.
    """

    def __init__(self, title: str = "kdp infer: q ends it") -> None:
        if sys.platform == "linux" and not _served(os.environ.get("DISPLAY", "")):
            raise KdpError("there is no display here; --headless prints JSON lines instead")
        self.title = title

    def show(self, picture: ImageArray) -> bool:
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


def _served(name: str) -> bool:
    """Whether an X server listens at a display; Qt ends the whole process where none does."""
    host, _, number = name.rpartition(":")
    number = number.split(".")[0]
    if not number.isdecimal():
        return False
    path, local = f"/tmp/.X11-unix/X{number}", host in ("", "unix")
    if local and any(_listens(place) for place in (f"\0{path}", path)):
        return True
    place = ("localhost" if local else host.strip("[]"), 6000 + int(number))
    with suppress(OSError, OverflowError), socket.create_connection(place, timeout=1):
        return True
    return False


def _listens(path: str) -> bool:
    """Whether a socket of this machine answers; a name that starts with a zero is no file."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(path)
        return True
    return False
