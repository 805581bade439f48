"""Video files, displays and cameras of `kdp infer`, without a display or a camera."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from kdp.errors import KdpError
from kdp.stages.infer import display, video
from kdp.stages.infer.request import InferRequest
from kdp.stages.infer.stream import open_stream
from tests.videos import blank, frames_of


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_odd_sides_are_made_even(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "clip.avi"
    with display.VideoFile(source.with_suffix(suffix)) as file:
        for _ in range(3):
            file.write(blank((51, 65)), 10)
        file.write(blank((80, 40)), 10)
    written, _ = frames_of(source.with_suffix(suffix))
    assert [frame.shape for frame in written] == [(52, 66, 3)] * 4


def test_a_slow_camera_is_recorded_at_its_real_speed(tmp_path: Path) -> None:
    with display.VideoFile(tmp_path / "out.avi") as file:
        for seconds, level in ((0.0, 0), (1.0, 100), (1.1, 200)):
            file.write(np.full((32, 32, 3), level, np.uint8), 10, seconds)
    levels = [round(float(frame.mean()), -2) for frame in frames_of(tmp_path / "out.avi")[0]]
    assert levels == [0] * 10 + [100, 200]


def test_a_camera_faster_than_announced_is_recorded_at_its_real_speed(tmp_path: Path) -> None:
    with display.VideoFile(tmp_path / "out.avi") as file:
        for number in range(31):
            file.write(blank((32, 32)), 10, number / 30)
        file.write(blank((32, 32)), 10, 1.099)  # a little early, for its place
    assert len(frames_of(tmp_path / "out.avi")[0]) == 12


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_huge_frames_are_refused_before_one_is_decoded(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with display.VideoFile(tmp_path / f"clip{suffix}") as file:
        file.write(blank((32, 64)), 10)
    monkeypatch.setattr(video, "MAX_PIXELS", 64 * 32 - 1)
    monkeypatch.setattr(video.Stream, "_pump", lambda self, capture: self._put(None))
    with pytest.raises(KdpError, match=rf"clip\{suffix} has frames of 64x32, more than"):
        next(video.video_stream(tmp_path / f"clip{suffix}").frames(10.0, lambda: False))


@pytest.mark.parametrize("suffix", list(display.CODECS))
def test_any_frame_rate_can_be_written(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    with display.VideoFile(target) as file:
        for _ in range(9):
            file.write(blank((32, 32)), 88.1234)
    written, rate = frames_of(target)
    assert len(written) == 9
    assert rate == pytest.approx(88.12)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file becomes larger than this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_video(tmp_path: Path) -> None:
    target, noise = tmp_path / "out.avi", np.random.default_rng(0)
    target.write_bytes(b"before")

    def cramped() -> None:
        with full_disk(200_000), display.VideoFile(target) as file:
            for _ in range(20):
                file.write(noise.integers(0, 256, (128, 128, 3), dtype=np.uint8), 10)

    with pytest.raises(KdpError, match=r"out\.avi: it is cut short; is the disk full\?"):
        cramped()
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_video_that_cannot_be_moved_into_place_is_a_one_line_error(tmp_path: Path) -> None:
    target = tmp_path / "out.avi"

    def late() -> None:
        with display.VideoFile(target) as file:
            file.write(blank((32, 32)), 10)
            target.mkdir()

    with pytest.raises(KdpError, match=r"cannot write .*out\.avi: Is a directory"):
        late()
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_run_leaves_the_old_video(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"before")

    def failing() -> None:
        with display.VideoFile(target) as file:
            file.write(blank(), 10)
            raise KdpError("enough")

    with pytest.raises(KdpError, match="enough"):
        failing()
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_display_is_available_where_a_server_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"127.0.0.1:{server.getsockname()[1] - 6000}.0"
        assert display._x_server_answers(name)
    assert not display._x_server_answers(name)


CONTAINERS = {
    **{".wmv": "WMV2", ".asf": "WMV2", ".flv": "FLV1"},
    **dict.fromkeys((".ts", ".mts", ".m2ts", ".3gp", ".3g2", ".mov"), "mp4v"),
}


@pytest.mark.parametrize("suffix", [*CONTAINERS, ".WMV"])
def test_videos_of_cameras_and_phones_are_read(tmp_path: Path, suffix: str) -> None:
    codec = cv2.VideoWriter.fourcc(*CONTAINERS[suffix.lower()])
    path = tmp_path / f"clip{suffix.lower()}"
    writer = cv2.VideoWriter(str(path), codec, 10, (64, 64))
    for _ in range(5):
        writer.write(blank((64, 64)))
    writer.release()
    path = path.rename(tmp_path / f"clip{suffix}")
    stream = open_stream(InferRequest(inputs=(str(path),)))
    assert stream is not None
    assert len(list(stream.frames(5, lambda: False))) == 5


@pytest.mark.parametrize("suffix", [".vob", ".f4v", ".ogv"])
def test_a_video_is_known_by_its_suffix_and_read_by_its_content(
    tmp_path: Path, suffix: str
) -> None:
    """OpenCV has no encoder for some of what it reads."""
    with display.VideoFile(tmp_path / "clip.avi") as file:
        for _ in range(5):
            file.write(blank((64, 64)), 10)
    path = (tmp_path / "clip.avi").rename(tmp_path / f"clip{suffix}")
    stream = open_stream(InferRequest(inputs=(str(path),)))
    assert stream is not None
    assert len(list(stream.frames(5, lambda: False))) == 5


class Levels:
    """OpenCV's functions for its log."""

    def __init__(self) -> None:
        self.level = 3

    def getLogLevel(self) -> int:  # noqa: N802
        return self.level

    def setLogLevel(self, level: int) -> None:  # noqa: N802
        self.level = level


@pytest.mark.parametrize("place", ["cv2", "cv2.utils.logging"])
@pytest.mark.parametrize("opens", [True, False])
def test_opencv_is_silent_while_it_opens_a_video(
    monkeypatch: pytest.MonkeyPatch, place: str, opens: bool
) -> None:
    """Up to 4.12 the functions lie in cv2 itself."""
    levels, during = Levels(), list[int]()
    monkeypatch.delattr(cv2.utils, "logging", raising=False)
    if place == "cv2":
        for name in ("getLogLevel", "setLogLevel"):
            monkeypatch.setattr(cv2, name, getattr(levels, name), raising=False)
    else:
        monkeypatch.setattr(cv2.utils, "logging", levels, raising=False)

    def capture(source: str) -> Any:
        during.append(levels.level)
        return SimpleNamespace(isOpened=lambda: opens)

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    with nullcontext() if opens else pytest.raises(KdpError, match="no video"):
        video._open("no video", "a.mp4")
    assert (during, levels.level) == ([video.SILENT], 3)


def test_csi_opens_the_jetson_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def capture(*source: Any) -> Any:
        opened.extend(source)
        raise KdpError("enough")

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: True)
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    with pytest.raises(KdpError, match="enough"):
        list(video.csi_stream().frames(5, lambda: False))
    elements = [part.split()[0] for part in opened[0].split(" ! ")]
    assert [e for e in elements if not e.startswith("video/")] == [
        "nvarguscamerasrc",
        "nvvidconv",
        "videoconvert",
        "appsink",
    ]
    assert opened[1] == cv2.CAP_GSTREAMER
