"""Frames from a video file or a camera."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from kdp.data.images import ImageArray
from kdp.errors import KdpError

VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif"}
USUAL_RATE = 30.0
"""Frames per second, where a source does not say."""
COUNTED = {".avi", ".mp4", ".mov"}
"""Videos that say how many frames they have; others estimate it from their length."""
SPARE = 2, 0.02
"""How many frames, or what share of them, may be missing: the count is not always exact."""
QUIET = "-8"

CSI = (
    "nvarguscamerasrc sensor-id=0 ! "
    "video/x-raw(memory:NVMM), width=(int)1280, height=(int)720, framerate=(fraction)30/1 ! "
    "nvvidconv ! video/x-raw, format=(string)BGRx ! videoconvert ! "
    "video/x-raw, format=(string)BGR ! appsink drop=true max-buffers=1"
)
"""The camera on a Jetson's ribbon cable, through GStreamer."""


class Stalled(KdpError):
    """A source that has ended without saying so."""


@dataclass(frozen=True)
class Frame:
    """One frame of a stream.

    Attributes:
        number: from 0.
        picture: (H, W, 3) uint8 RGB.
        seconds: since the first frame was here.
    """

    number: int
    picture: ImageArray
    seconds: float


class Stream:
    """Frames, read by a thread of their own so that a read that hangs hangs nobody else.

    Args:
        name: for messages.
        start: gives an opened capture, or raises KdpError.
        live: a camera. Only its newest frame counts, and a read that fails is no end.
        counted: what it says of its number of frames is true.

    Attributes:
        rate: frames per second as the source says, once there was a frame.
    """

    def __init__(
        self, name: str, start: Callable[[], Any], live: bool, counted: bool = False
    ) -> None:
        self.name, self.live, self.rate = name, live, USUAL_RATE
        self._counted, self._expected = counted, 0.0
        self._start, self._over = start, threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(1 if live else 4)

    def frames(self, patience: float, stopped: Callable[[], bool]) -> Generator[Frame, None, None]:
        """Every frame until the end, or until `stopped()`.

        Args:
            patience: seconds to wait for a frame.
            stopped: asked ten times a second and before every frame.

        Raises:
            KdpError: the source cannot be opened or has no frame.
            Stalled: no frame came for `patience` seconds, or the source ended too early.
        """
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            yield from self._arriving(patience, stopped)
        finally:
            self._over.set()
            reader.join(timeout=1)

    def _arriving(
        self, patience: float, stopped: Callable[[], bool]
    ) -> Generator[Frame, None, None]:
        number, first, since = 0, 0.0, time.monotonic()
        while not stopped():
            try:
                item = self._queue.get(timeout=min(0.1, patience))
            except queue.Empty:
                if time.monotonic() - since >= patience:
                    raise self._stalled(patience, number) from None
                continue
            if isinstance(item, Exception):
                raise item
            if item is None:
                return self._end(number)
            first = first if number else time.monotonic()
            yield Frame(number, cv2.cvtColor(item, cv2.COLOR_BGR2RGB), time.monotonic() - first)
            number, since = number + 1, time.monotonic()

    def _stalled(self, patience: float, number: int) -> Stalled:
        silent = f"{self.name} gave no frame for {patience:g} s"
        return Stalled(f"{silent}; {number} frames were read before")

    def _end(self, number: int) -> None:
        if not number:
            raise KdpError(f"{self.name} has no frame that can be read")
        if self._expected - number > max(SPARE[0], SPARE[1] * self._expected):
            ended = f"{self.name} ended after {number} of {self._expected:.0f} frames"
            raise Stalled(f"{ended}; is it cut short?")

    def _read(self) -> None:
        """The thread: frames, then None or what went wrong, into the queue."""
        try:
            capture = self._start()
            rate = float(capture.get(cv2.CAP_PROP_FPS))
            self.rate = rate if 1 <= rate <= 240 else USUAL_RATE
            if self._counted:
                self._expected = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            try:
                self._pump(capture)
            finally:
                capture.release()
        except Exception as error:
            self._put(error)

    def _pump(self, capture: Any) -> None:
        while not self._over.is_set():
            there, frame = capture.read()
            if there:
                self._put(frame)
            elif self.live:
                self._over.wait(0.01)
            else:
                return self._put(None)

    def _put(self, item: Any) -> None:
        while not self._over.is_set():
            try:
                return self._queue.put(item, block=not self.live, timeout=0.1)
            except queue.Full:
                if self.live:
                    with suppress(queue.Empty):
                        self._queue.get_nowait()


def video_stream(path: Path) -> Stream:
    """The frames of a video file."""
    complaint = f"cannot read the video {path}: it is missing, corrupt or of an unknown codec"
    counted = path.suffix.lower() in COUNTED
    return Stream(f"the video {path}", lambda: _open(complaint, str(path)), False, counted)


def camera_stream(number: int) -> Stream:
    """The frames of the computer's camera of a number, from 0."""
    complaint = f"there is no camera {number}, or another program has it"
    return Stream(f"camera {number}", lambda: _open(complaint, number), live=True)


def csi_stream() -> Stream:
    """The frames of a Jetson's CSI camera.

    Raises:
        KdpError: OpenCV was built without GStreamer.
    """
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise KdpError(
            f"--csi needs GStreamer, and this OpenCV {cv2.__version__} was built without it, as "
            "all of PyPI are: `pip uninstall opencv-python` and use the one of JetPack (a virtual "
            "environment with --system-site-packages), or build OpenCV with -D WITH_GSTREAMER=ON"
        )
    complaint = "there is no CSI camera, or nvargus-daemon does not run; try `sudo systemctl "
    complaint += "restart nvargus-daemon`"
    return Stream("the CSI camera", lambda: _open(complaint, CSI, cv2.CAP_GSTREAMER), live=True)


def _open(complaint: str, *source: Any) -> Any:
    """An opened capture; the many lines of OpenCV and FFmpeg about one that is not there go."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", QUIET)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(*source)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise KdpError(complaint)
    return capture
