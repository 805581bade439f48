"""`kdp infer` on a video or a camera: frames are labelled, shown and written."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from kdp.errors import Interrupted, KdpError
from kdp.log import log
from kdp.serialize import json_line
from kdp.stages.infer.display import CODECS, VideoFile, Window
from kdp.stages.infer.predict import timed, times_in_ms
from kdp.stages.infer.predict_images import advise, caption
from kdp.stages.infer.request import Emit, InferRequest, InferResult
from kdp.stages.infer.times import FrameTimes
from kdp.stages.infer.video import (
    VIDEOS,
    Frame,
    Stalled,
    Stream,
    camera_stream,
    csi_stream,
    video_stream,
)
from kdp.stages.replacing import OTHER_OUTPUT, check_targets
from kdp.tasks.predictor import Predictor
from kdp.training.shutdown import Shutdown

PATIENCE = 10.0
"""Seconds without a frame after which a stream counts as stalled."""
SMOOTHING = 0.9
"""Share of the previous frames in the frame rate that is drawn."""


def open_stream(request: InferRequest) -> Stream | None:
    """The requested stream, or None for images.

    Raises:
        KdpError: not exactly one source, a missing video, or an output that does not fit.
    """
    videos = [name for name in request.inputs if _is_video(Path(name))]
    if bool(request.inputs) + (request.camera is not None) + request.csi != 1:
        raise KdpError("give one of: images, a video file, --camera N, --csi")
    if videos and len(request.inputs) > 1:
        raise KdpError(f"{videos[0]} is a video; give one video alone, or images")
    if request.inputs and not videos:
        if request.save is not None:
            raise KdpError(f"{request.save} names a video; images are written to a folder")
        return None
    if request.output is not None:
        endings = ", ".join(CODECS)
        raise KdpError(f"cannot write the stream to {request.output}: a video ends in {endings}")
    if request.csi:
        return csi_stream()
    if request.camera is not None:
        return camera_stream(request.camera)
    return _video(Path(videos[0]), request.save)


def _is_video(path: Path) -> bool:
    """Whether the name is that of a video; a folder may have any name."""
    return path.suffix.lower() in VIDEOS and not path.is_dir()


def _video(path: Path, save: Path | None) -> Stream:
    if not path.is_file():
        if any(character in str(path) for character in "*?["):
            raise KdpError(
                f"{path} is a pattern of videos; give the name of one video, and run kdp for each"
            )
        raise KdpError(f"there is no video {path}")
    if save and save.exists() and os.path.samefile(path, save):
        raise KdpError(f"{save} is the video itself; choose another name (--output)")
    return video_stream(path)


def predict_frames(
    stream: Stream, predictor: Predictor, request: InferRequest, emit: Emit, shutdown: Shutdown
) -> InferResult:
    """Predict every frame until the stream ends, stalls, or the user stops it; log their times.

    Args:
        stream: the frames.
        predictor: of the network's family.
        request: `save`, `headless` and `overwrite` are read.
        emit: receives a line of JSON for each frame where `headless`.
        shutdown: is checked before every frame.

    Raises:
        KdpError: there is no display, the stream has no frame, or the video cannot be written.
        Interrupted: stopped on request; the video that was written is complete.
    """
    if request.save:
        check_targets([request.save], request.overwrite, OTHER_OUTPUT)
    result, count = InferResult([], []), 0
    with ExitStack() as stack:
        window = None if request.headless else stack.enter_context(closing(Window()))
        video = stack.enter_context(VideoFile(request.save)) if request.save else None
        frames = stream.frames(PATIENCE, lambda: shutdown.stop_requested)
        handle = FrameHandler(stream, predictor, emit if request.headless else None, window, video)
        try:
            for frame in stack.enter_context(closing(frames)):
                count += 1
                if not handle(frame):
                    break
        except Stalled as error:  # the frames before are worth a file
            result.unreadable.append(str(error))
    advise(predictor, "frames")
    for line in handle.times.lines():
        log.info(line)
    # The video gets its name when its context closes, so that only now it is written.
    if video and video.count:
        result.written.append(video.path)
    if shutdown.stop_requested:
        complete = f"; {result.written[0]} is complete" if result.written else ""
        raise Interrupted(f"stopped after {count} frames{complete}")
    return result


@dataclass
class FrameHandler:
    """Predicts a frame, and reports, writes and shows it.

    Attributes:
        stream: where frames come from.
        predictor: of the network's family.
        emit: receives a line of JSON for each frame; None for no report.
        window: shows the frames, if any.
        video: receives the annotated frames, if any.
        times: of the frames.
    """

    stream: Stream
    predictor: Predictor
    emit: Emit | None
    window: Window | None
    video: VideoFile | None
    times: FrameTimes = field(default_factory=FrameTimes)
    _last_time: float | None = None
    _interval: float | None = None

    def __call__(self, frame: Frame) -> bool:
        """False once the window is closed."""
        prediction, ms = timed(self.predictor, frame.image)
        self.times.add(ms, prediction.part_ms, time.perf_counter())
        if self.emit:
            line = {"frame": frame.number, **times_in_ms(prediction, ms), **prediction.plain()}
            self.emit(json_line(line))
        rate = self._rate(ms)
        if not self.window and not self.video:
            return True
        image = prediction.image(caption(ms, rate))
        if self.video:
            seconds = frame.seconds if self.stream.live else None
            self.video.write(image, self.stream.rate, seconds)
        return self.window.show(image) if self.window else True

    def _rate(self, ms: float) -> float:
        """Recent frames per second, with reading, drawing and writing: a smoothed average."""
        now = time.perf_counter()
        new = ms / 1000 if self._last_time is None else now - self._last_time
        old = new if self._interval is None else self._interval
        self._last_time, self._interval = now, SMOOTHING * old + (1 - SMOOTHING) * new
        return 1 / self._interval
