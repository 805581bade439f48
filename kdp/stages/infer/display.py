"""Frames into a video file or a window."""

from __future__ import annotations

import math
import os
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from kdp.data.images import ImageArray
from kdp.errors import KdpError
from kdp.files import sync_folder
from kdp.temporary import temporary_file
from kdp.written import note_written

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""Codecs by suffix that every OpenCV with FFmpeg can write."""
DIGITS = 2
"""Decimals of the frame rate: mpeg4 stores it as a fraction whose denominator has 16 bits."""
ESCAPE = 27


class VideoFile:
    """A video to write; a context that gives it its name at the end, and drops it on an error.

    Codecs need even widths and heights, so that the last column or row of an odd frame is
    repeated. A frame of another size than the first is resized to it.

    Args:
        path: its suffix decides the codec, see `CODECS`.

    Raises:
        KdpError: an unknown suffix, the file cannot be written, or it lacks frames afterwards.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in CODECS:
            raise KdpError(f"cannot write {path}: a video ends in {', '.join(CODECS)}")
        self.path, self.count = path, 0
        self._stack = ExitStack()
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, image: ImageArray, rate: float, seconds: float | None = None) -> None:
        """Append an RGB frame.

        Args:
            image: (H, W, 3) uint8.
            rate: frames per second; the first call decides.
            seconds: when a camera took it. The previous frame is repeated up to that time, and a
                frame whose slot is filled is dropped, so that the video plays in real time
                although the camera is slower or faster than `rate`.
        """
        height, width = image.shape[:2]
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._begin((even.shape[1], even.shape[0]), rate)
        # The nearest slot, not the one before: a frame that comes a little early is kept.
        due = self.count if seconds is None else math.floor(seconds * self._rate + 0.5)
        while self.count < due:
            self._append(self._last)
        if self.count == due:
            self._append(self._resized(cv2.cvtColor(even, cv2.COLOR_RGB2BGR)))

    def _resized(self, frame: Any) -> Any:
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
            file = temporary_file(self.path, self.path.suffix.lower())
            self._temporary, _ = self._stack.enter_context(file)
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
            self._stack.close()

    def _finish(self) -> None:
        if _frames_in(self._temporary) < self.count:
            raise KdpError(f"cannot write {self.path}: it is cut short; is the disk full?")
        try:
            with self._temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._temporary, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise KdpError(f"cannot write {self.path}: {error.strerror}") from error
        note_written(self.path)


def _frames_in(path: Path) -> int:
    """How many frames can be read: OpenCV reports no error for a frame that it failed to write."""
    capture, count = cv2.VideoCapture(str(path)), 0
    try:
        while capture.grab():
            count += 1
    finally:
        capture.release()
    return count


class Window:
    """Shows frames until the user closes the window or presses q or Escape.

    Raises:
        KdpError: there is no display.
    """

    def __init__(self, title: str = "kdp infer (q to quit)") -> None:
        if sys.platform == "linux" and not _x_server_answers(os.environ.get("DISPLAY", "")):
            raise KdpError("there is no display here; --headless prints JSON lines instead")
        self.title = title

    def show(self, image: ImageArray) -> bool:
        """Show an RGB image; False once the user has ended it."""
        try:
            cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            key = cv2.waitKey(1) & 0xFF
            visible = cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error as error:
            raise KdpError("this OpenCV was built without windows; use --headless") from error
        return visible and key not in (ord("q"), ESCAPE)

    def close(self) -> None:
        with suppress(cv2.error):
            cv2.destroyAllWindows()


def _x_server_answers(name: str) -> bool:
    """Whether an X server listens at a display.

    Qt aborts the whole process where none does, so that OpenCV must not be asked to find out.
    """
    host, _, number = name.rpartition(":")
    number = number.split(".")[0]
    if not number.isdecimal():
        return False
    path, local = f"/tmp/.X11-unix/X{number}", host in ("", "unix")
    if local and any(_listens(address) for address in (f"\0{path}", path)):
        return True
    address = ("localhost" if local else host.strip("[]"), 6000 + int(number))
    with suppress(OSError, OverflowError), socket.create_connection(address, timeout=1):
        return True
    return False


def _listens(path: str) -> bool:
    """Whether a local socket answers; a leading zero byte means a name outside the file system."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        connection.connect(path)
        return True
    return False
