"""Frames from a video file or a camera."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from kdp import MAX_PIXELS
from kdp.data.images import ImageArray
from kdp.errors import KdpError

VIDEOS = {
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".avi", ".mkv", ".webm", ".gif"),
    *(".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".flv", ".f4v", ".wmv", ".asf", ".ogv"),
}
DEFAULT_RATE = 30.0
"""Frames per second of a source that does not report its rate."""
COUNTED = {".avi", ".mp4", ".mov"}
"""Formats that store how many frames they have; others estimate it from their duration."""
TOLERATED = 2, 0.02
"""Frames, and share of the frames, that may be missing: the stored count is not always exact."""
QUIET = "-8"
"""FFmpeg's log level that prints nothing."""
SILENT = 0
"""OpenCV's."""

CSI = (
    "nvarguscamerasrc sensor-id=0 ! "
    "video/x-raw(memory:NVMM), width=(int)1280, height=(int)720, framerate=(fraction)30/1 ! "
    "nvvidconv ! video/x-raw, format=(string)BGRx ! videoconvert ! "
    "video/x-raw, format=(string)BGR ! appsink drop=true max-buffers=1"
)
"""The camera on a Jetson's ribbon cable, through GStreamer."""


class Stalled(KdpError):
    """A source that stopped giving frames before its end."""


@dataclass(frozen=True)
class Frame:
    """One frame of a stream.

    Attributes:
        number: from 0.
        image: (H, W, 3) uint8 RGB.
        seconds: since the first frame arrived.
    """

    number: int
    image: ImageArray
    seconds: float


class Stream:
    """Frames of a source. A thread of its own reads them: a read that hangs must not block Ctrl-C.

    Args:
        name: for messages.
        start: returns an opened capture, or raises KdpError.
        live: whether it is a camera, of which only the newest frame counts and a failed read is
            not the end.
        counted: whether the source knows its number of frames.

    Attributes:
        rate: frames per second as the source reports them; valid after the first frame.
    """

    def __init__(
        self, name: str, start: Callable[[], Any], live: bool, counted: bool = False
    ) -> None:
        self.name, self.live, self.rate = name, live, DEFAULT_RATE
        self._counted, self._expected = counted, 0.0
        self._start, self._closed = start, threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(1 if live else 4)

    def frames(self, patience: float, stopped: Callable[[], bool]) -> Generator[Frame, None, None]:
        """Every frame until the end, or until `stopped()`.

        Args:
            patience: seconds to wait for a frame.
            stopped: called ten times a second and before every frame.

        Raises:
            KdpError: the source cannot be opened or has no frames.
            Stalled: no frame came for `patience` seconds, or the source ended too early.
        """
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        try:
            yield from self._arriving(patience, stopped)
        finally:
            self._closed.set()
            reader.join(timeout=1)

    def _arriving(
        self, patience: float, stopped: Callable[[], bool]
    ) -> Generator[Frame, None, None]:
        number, first_time, last_time = 0, 0.0, time.monotonic()
        while not stopped():
            try:
                item = self._queue.get(timeout=min(0.1, patience))
            except queue.Empty:
                if time.monotonic() - last_time >= patience:
                    raise self._stalled(patience, number) from None
                continue
            if isinstance(item, Exception):
                raise item
            if item is None:
                return self._check_end(number)
            first_time = first_time if number else time.monotonic()
            image = cv2.cvtColor(item, cv2.COLOR_BGR2RGB)
            yield Frame(number, image, time.monotonic() - first_time)
            number, last_time = number + 1, time.monotonic()

    def _stalled(self, patience: float, number: int) -> Stalled:
        silent = f"{self.name} gave no frame for {patience:g} s"
        return Stalled(f"{silent}; {number} frames were read before")

    def _check_end(self, number: int) -> None:
        if not number:
            raise KdpError(f"{self.name} has no readable frame")
        if self._expected - number > max(TOLERATED[0], TOLERATED[1] * self._expected):
            ended = f"{self.name} ended after {number} of {self._expected:.0f} frames"
            raise Stalled(f"{ended}; is it cut short?")

    def _read(self) -> None:
        """The thread: puts frames, then None or an exception, into the queue."""
        try:
            capture = self._start()
            self._check_size(capture)
            rate = float(capture.get(cv2.CAP_PROP_FPS))
            self.rate = rate if 1 <= rate <= 240 else DEFAULT_RATE
            if self._counted:
                self._expected = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            try:
                self._pump(capture)
            finally:
                capture.release()
        except Exception as error:
            self._put(error)

    def _check_size(self, capture: Any) -> None:
        """Refuse huge frames before the first one is decoded, by what the source says of them."""
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        width, height = (int(capture.get(side)) for side in sides)
        if width * height > MAX_PIXELS:
            capture.release()
            raise KdpError(
                f"{self.name} has frames of {width}x{height}, more than {MAX_PIXELS / 1e6:.0f} "
                "megapixels: refused"
            )

    def _pump(self, capture: Any) -> None:
        while not self._closed.is_set():
            ok, frame = capture.read()
            if ok:
                self._put(frame)
            elif self.live:
                self._closed.wait(0.01)
            else:
                return self._put(None)

    def _put(self, item: Any) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, block=not self.live, timeout=0.1)
            except queue.Full:
                if self.live:
                    with suppress(queue.Empty):
                        self._queue.get_nowait()


def video_stream(path: Path) -> Stream:
    """The frames of a video file."""
    message = f"cannot read the video {path}: it is missing, corrupt or of an unknown codec"
    counted = path.suffix.lower() in COUNTED
    return Stream(f"the video {path}", lambda: _open(message, str(path)), False, counted)


def camera_stream(number: int) -> Stream:
    """The frames of a camera of this computer, numbered from 0."""
    message = f"there is no camera {number}, or another program has it"
    return Stream(f"camera {number}", lambda: _open(message, number), live=True)


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
    message = "there is no CSI camera, or nvargus-daemon does not run; try `sudo systemctl "
    message += "restart nvargus-daemon`"
    return Stream("the CSI camera", lambda: _open(message, CSI, cv2.CAP_GSTREAMER), live=True)


@contextmanager
def _opencv_silenced() -> Iterator[None]:
    # OpenCV has these functions in a module of their own from 4.13 on.
    logging = getattr(cv2.utils, "logging", cv2)
    level = logging.getLogLevel()
    logging.setLogLevel(SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _open(message: str, *source: Any) -> Any:
    """An opened capture, without the lines that OpenCV and FFmpeg print about a missing source.

    Raises:
        KdpError: it cannot be opened; with this message.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", QUIET)
    with _opencv_silenced():
        capture = cv2.VideoCapture(*source)
    if not capture.isOpened():
        raise KdpError(message)
    return capture
