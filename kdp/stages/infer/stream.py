"""`kdp infer` for classifiers and detectors: what is found in pictures and streams is labelled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kdp.data.images import ImageArray, png_bytes, read_rgb
from kdp.devices import pick_device
from kdp.errors import Interrupted, KdpError
from kdp.files import write_atomic
from kdp.progress import progress
from kdp.serialize import json_line
from kdp.stages.infer.display import VideoFile, Window
from kdp.stages.infer.images import Inference, find_images, targets
from kdp.stages.infer.video import (
    VIDEOS,
    Frame,
    Stalled,
    Stream,
    camera_stream,
    csi_stream,
    video_stream,
)
from kdp.tasks.classification import Classification
from kdp.tasks.detection import Detection, ObjectLabeller
from kdp.tasks.face_boxes import FaceFinder, FaceLabeller, WholePicture
from kdp.tasks.labelled_boxes import LabelledBox, drawn
from kdp.training.shutdown import Shutdown, graceful_shutdown

PATIENCE = 10.0
"""Seconds without a frame after which a stream has stalled."""
SMOOTHING = 0.9
"""How much of the frame rate that is drawn comes from the frames before."""


@dataclass(frozen=True)
class Request:
    """What `kdp infer` was asked for.

    Attributes:
        pictures: see `find_images`; or one video file.
        folder: where pictures go (default: see `targets`).
        ensemble: see `kdp.stages.infer.super_resolve`.
        camera: number of a camera to look through.
        csi: look through a Jetson's CSI camera.
        whole: classify whole pictures and look for no faces.
        save: the annotated video.
        headless: no window; a line of JSON for every frame or picture.
    """

    pictures: tuple[str, ...] = ()
    folder: Path | None = None
    ensemble: bool = False
    camera: int | None = None
    csi: bool = False
    whole: bool = False
    save: Path | None = None
    headless: bool = False


Emit = Callable[[str], None]
Label = Callable[[ImageArray], list[LabelledBox]]
Report = Callable[[dict[str, Any]], None]


def watch(
    model: nn.Module, task: Classification | Detection, request: Request, emit: Emit
) -> Inference:
    """Label the faces, or the objects, of pictures or of a stream.

    Raises:
        KdpError: not exactly one source, one that is not there, an option it has no use for, no
            display for a stream that is not `headless`, or a file cannot be written.
        Interrupted: stopped on request; what was written is complete.
    """
    stream = _stream(request)
    model.to(pick_device(task.config.device))
    label, noun = _labeller(model, task, request.whole)
    report: Report = (lambda found: emit(json_line(found))) if request.headless else _silent
    with graceful_shutdown() as shutdown:
        if stream is None:
            return _pictures(label, noun, request, report, shutdown)
        return _frames(stream, label, noun, request, report, shutdown)


def _labeller(model: nn.Module, task: Classification | Detection, whole: bool) -> tuple[Label, str]:
    """What labels a picture, and what it labels, in a word."""
    if isinstance(task, Detection):
        return ObjectLabeller(model, task), "objects"
    return FaceLabeller(model, task, WholePicture() if whole else FaceFinder()), "faces"


def reject_options(given: dict[str, bool], why: str) -> None:
    """Let none of these options pass.

    Raises:
        KdpError: one of them is given.
    """
    for option, there in given.items():
        if there:
            raise KdpError(f"{option} does not apply: {why}")


def _silent(found: dict[str, Any]) -> None:
    """No report."""


def _stream(request: Request) -> Stream | None:
    """The stream that is asked for, or None for pictures."""
    videos = [one for one in request.pictures if _is_video(Path(one))]
    if bool(request.pictures) + (request.camera is not None) + request.csi != 1:
        raise KdpError("give one of: pictures, a video file, --camera N, --csi")
    if videos and len(request.pictures) > 1:
        raise KdpError(f"{videos[0]} is a video; give one video alone, or pictures")
    if request.pictures and not videos:
        reject_options({"--save": request.save is not None}, "pictures go into a folder (--to)")
        return None
    reject_options(
        {"--to": request.folder is not None}, "a stream goes into one file (--save out.mp4)"
    )
    if request.csi:
        return csi_stream()
    if request.camera is not None:
        return camera_stream(request.camera)
    return _video(Path(videos[0]), request.save)


def _is_video(path: Path) -> bool:
    """Whether it is named as one; a folder may be called anything."""
    return path.suffix.lower() in VIDEOS and not path.is_dir()


def _video(path: Path, save: Path | None) -> Stream:
    if not path.is_file():
        pattern = any(character in str(path) for character in "*?[")
        raise KdpError(
            f"{path} is a pattern of videos; give the name of one video, and run kdp for each"
            if pattern
            else f"there is no video {path}"
        )
    if save and save.exists() and os.path.samefile(path, save):
        raise KdpError(f"{save} is the video itself; choose another name (--save)")
    return video_stream(path)


def _timed(label: Label, picture: ImageArray) -> tuple[list[LabelledBox], float]:
    """What is found, and the milliseconds that took."""
    start = time.perf_counter()
    found = label(picture)
    return found, 1000 * (time.perf_counter() - start)


def _pictures(
    label: Label, noun: str, request: Request, report: Report, shutdown: Shutdown
) -> Inference:
    """Every picture as a PNG with its boxes; one that cannot be read does not stop the rest."""
    sources = find_images(request.pictures)
    plan = targets(sources, request.folder, noun)
    done = Inference([], [])
    # A bar on a terminal takes standard output with it, where the lines of JSON go.
    bar = nullcontext(lambda: None) if request.headless else progress(f"label {noun}", len(plan))
    with bar as advance:
        for source, target in zip(sources, plan, strict=True):
            if shutdown.stop_requested:
                raise Interrupted(f"stopped after {len(done.written)} of {len(plan)} pictures")
            try:
                picture = read_rgb(source)
            except KdpError as error:
                done.unreadable.append(str(error))
            else:
                found, ms = _timed(label, picture)
                note = f"{ms:.1f} ms {1000 / ms:.1f} fps"
                write_atomic(target, png_bytes(drawn(picture, found, note)))
                done.written.append(target)
                report(
                    {
                        "file": str(source),
                        "written": str(target),
                        "ms": round(ms, 2),
                        noun: [one.plain() for one in found],
                    }
                )
            advance()
    return done


def _frames(
    stream: Stream,
    label: Label,
    noun: str,
    request: Request,
    report: Report,
    shutdown: Shutdown,
) -> Inference:
    """Every frame to where it is wanted, until the stream ends, stalls or is stopped."""
    done, count = Inference([], []), 0
    with ExitStack() as stack:
        window = None if request.headless else stack.enter_context(closing(Window()))
        video = stack.enter_context(VideoFile(request.save)) if request.save else None
        arriving = stream.frames(PATIENCE, lambda: shutdown.stop_requested)
        show = FrameHandler(stream, label, noun, report, window, video)
        try:
            for frame in stack.enter_context(closing(arriving)):
                count += 1
                if not show(frame):
                    break
        except Stalled as error:  # what was seen before is worth its file
            done.unreadable.append(str(error))
    if video and video.count:
        done.written.append(video.path)
    if shutdown.stop_requested:
        where = f"; {done.written[0]} is complete" if done.written else ""
        raise Interrupted(f"stopped after {count} frames{where}")
    return done


@dataclass
class FrameHandler:
    """What happens to every frame; False once nobody looks any more."""

    stream: Stream
    label: Label
    noun: str
    report: Report
    window: Window | None
    video: VideoFile | None
    _before: float | None = None
    _interval: float | None = None

    def __call__(self, frame: Frame) -> bool:
        found, ms = _timed(self.label, frame.picture)
        plain = [one.plain() for one in found]
        self.report({"frame": frame.number, "ms": round(ms, 2), self.noun: plain})
        rate = self._rate(ms)
        if not self.window and not self.video:
            return True
        picture = drawn(frame.picture, found, f"{ms:.1f} ms {rate:.1f} fps")
        if self.video:
            seconds = frame.seconds if self.stream.live else None
            self.video.write(picture, self.stream.rate, seconds)
        return self.window.show(picture) if self.window else True

    def _rate(self, ms: float) -> float:
        """Frames per second of late, reading, drawing and writing included."""
        now = time.perf_counter()
        new = ms / 1000 if self._before is None else now - self._before
        old = new if self._interval is None else self._interval
        self._before, self._interval = now, SMOOTHING * old + (1 - SMOOTHING) * new
        return 1 / self._interval
