"""`kdp infer` for a classifier: faces in images, videos and cameras, without either a camera or a
display."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kdp.artifacts import Artifact, make_record, save
from kdp.cli import app, main
from kdp.data.images import ImageArray, png_bytes, read_rgb
from kdp.models import build
from kdp.stages.infer import display, video
from kdp.stages.infer import stream as stage
from kdp.tasks import labelled_boxes
from kdp.tasks.classification import face_boxes
from kdp.types import Arch
from tests.conftest import ROOT, TINY
from tests.runs import complaints
from tests.videos import blank, frames_of

ASTRONAUT = (86, 31, 53, 53)
"""The box of her face, where the image is 256 pixels wide."""
SHOWN = [True, True, False, True, False]
"""In which frames of the video there is a face."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results go under the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier that predicts `without_mask` with probability 0.982 for any image."""
    args = {"channels": [4, 4], "dropout": 0.0}
    params = build("mask_classifier", **args).state_dict()
    params["head.weight"].zero_()
    params["head.bias"].copy_(torch.tensor([0.0, 4.0]))
    path = tmp_path_factory.mktemp("networks") / "faces.pth"
    arch = Arch("mask_classifier", args)
    save(path, Artifact(params, arch, make_record("train", {})))
    return path


def face(size: tuple[int, int] = (256, 256)) -> ImageArray:
    from skimage.data import astronaut

    image: ImageArray = cv2.resize(astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    return image[: size[0], : size[1]]


def clip(path: Path, size: tuple[int, int] = (256, 256), rate: float = 10) -> Path:
    """A video of five frames, (height, width)."""
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, rate, size[::-1])
    for there in SHOWN:
        writer.write(np.ascontiguousarray((face if there else blank)(size)[..., ::-1]))
    writer.release()
    return path


def kdp(*arguments: str | Path) -> Any:
    """`kdp infer` within this process, on a CPU."""
    return CliRunner().invoke(app, ["infer", *map(str, arguments), "--device", "cpu"])


def lines(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def overlap(box: Any, other: Any) -> float:
    """Intersection over union of two boxes."""
    sides = [
        min(box[i] + box[i + 2], other[i] + other[i + 2]) - max(box[i], other[i]) for i in (0, 1)
    ]
    common = max(0, sides[0]) * max(0, sides[1])
    return common / (box[2] * box[3] + other[2] * other[3] - common)


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `kdp infer` as the program does; it must end with this code and the line returned."""

    def run(*arguments: str | Path, code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["kdp", "infer", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        assert end.value.code == code, printed.err
        (line,) = complaints(printed.err)
        assert printed.err.splitlines()[-1] == line
        return line

    return run


class Capture:
    """A camera that returns a few frames and then fails."""

    def __init__(self, frames: list[ImageArray], hang: threading.Event | None = None) -> None:
        self.frames, self.hang = list(frames), hang

    def get(self, _: int) -> float:
        return 5.0

    def read(self) -> tuple[bool, Any]:
        if self.frames:
            return True, self.frames.pop(0)
        if self.hang:
            self.hang.wait(20)
        return False, None

    def release(self) -> None: ...


def test_every_frame_of_a_video_is_one_line_of_json(network: Path, tmp_path: Path) -> None:
    result = kdp(network, clip(tmp_path / "clip.avi"), "--headless")
    assert result.exit_code == 0, result.output
    reports = lines(result)
    assert [line["frame"] for line in reports] == list(range(5))
    assert all(line["ms"] >= line["detector_ms"] > 0 for line in reports)
    assert ["classifier_ms" in line for line in reports] == SHOWN
    assert [len(line["faces"]) for line in reports] == [int(there) for there in SHOWN]
    (labelled,) = reports[0]["faces"]
    assert (labelled["class"], labelled["probability"]) == ("without_mask", 0.982)
    assert overlap(labelled["box"], ASTRONAUT) > 0.7


def test_a_stream_ends_in_a_summary_of_times(network: Path, tmp_path: Path) -> None:
    result = kdp(network, clip(tmp_path / "clip.avi"), "--headless")
    title, *parts = result.stderr.splitlines()[-5:]
    assert title == "Times of 4 frames (without the first), in ms:"
    assert [line.split()[0] for line in parts[:3]] == ["frame:", "detector:", "classifier:"]
    assert "frames per second" in parts[3]


def test_the_video_that_is_written_has_every_frame_with_its_box(
    network: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "out.mp4"
    result = kdp(network, clip(tmp_path / "clip.avi"), "--headless", "--save", target)
    assert result.exit_code == 0, result.output
    assert len(lines(result)) == 5
    assert str(target) in result.stderr
    written, rate = frames_of(target)
    assert (len(written), rate) == (5, 10)
    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"]
    left, top, width, _ = lines(result)[0]["faces"][0]["box"]
    b, g, r = written[0][top, left + width // 2 : left + width].mean(0)
    plain = face()[top, left + width // 2 : left + width].mean(0)
    assert r - (g + b) / 2 > plain[0] - plain[1:].mean() + 40


def test_an_image_without_a_probability_is_still_json() -> None:
    face = labelled_boxes.LabelledBox((0, 0, 2, 2), 0, "with_mask", float("nan"))
    assert json.loads(json.dumps(face.plain(), allow_nan=False))["probability"] is None


def test_images_go_under_the_current_folder(network: Path, tmp_path: Path) -> None:
    photos = tmp_path / "album" / "photos"
    photos.mkdir(parents=True)
    for name, image in (("a", face()), ("b", blank()), ("c", blank((3, 2)))):
        (photos / f"{name}.png").write_bytes(png_bytes(image))
    (photos / "d.png").write_bytes(b"no image")
    result = kdp(network, photos)
    assert "d.png: it is missing or corrupt" in str(result.exception)
    written = [Path("photos_faces") / f"{name}.png" for name in "abc"]
    assert result.stdout.splitlines() == [str(path) for path in written]
    assert (read_rgb(written[0]) != face()).any(2)[ASTRONAUT[1] : 85, 70:150].any()
    assert np.array_equal(read_rgb(written[1])[:200], blank()[:200])


def test_images_as_json(network: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(png_bytes(face()))
    result = kdp(network, str(tmp_path / "*.png"), "--headless", "--to", tmp_path / "to")
    (line,) = lines(result)
    assert (line["file"], line["written"]) == (str(image), str(tmp_path / "to" / "a.png"))
    assert Path(line["written"]).is_file()
    assert overlap(line["faces"][0]["box"], ASTRONAUT) > 0.7


def test_a_folder_may_be_called_like_a_video(network: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.mov").mkdir()
    (tmp_path / "holiday.mov" / "a.png").write_bytes(png_bytes(blank()))
    result = kdp(network, tmp_path / "holiday.mov")
    assert result.stdout.splitlines() == [str(Path("holiday.mov_faces") / "a.png")]


def test_whole_skips_face_detection(network: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png_bytes(blank((20, 30))))
    (line,) = lines(kdp(network, tmp_path / "in", "--headless", "--whole"))
    (labelled,) = line["faces"]
    assert (labelled["box"], labelled["class"]) == ([0, 0, 30, 20], "without_mask")


def test_make_face_labels_its_photograph_correctly(tmp_path: Path) -> None:
    """She wears no mask; networks trained on toy faces say that she does."""
    from skimage import data

    (weights,) = re.findall(r"infer (weights/\S+)", (ROOT / "Makefile").read_text())
    photograph = Path(data.__path__[0]) / "astronaut.png"
    (line,) = lines(kdp(ROOT / weights, photograph, "--headless"))
    assert [face["class"] for face in line["faces"]] == ["without_mask"]


def test_the_class_of_every_face_is_printed_in_words(network: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(face()))
    result = kdp(network, tmp_path / "a.png", "-o", "labelled.png")
    assert re.search(r"a\.png: faces: with(out)?_mask [01]\.\d+", result.stderr)
    assert Path("labelled.png").is_file()


def test_faces_are_searched_in_a_smaller_copy_of_large_images() -> None:
    image = cv2.resize(face(), (2048, 2048), interpolation=cv2.INTER_CUBIC)
    boxes = face_boxes.FaceFinder()(image)
    assert max(overlap(box, [8 * side for side in ASTRONAUT]) for box in boxes) > 0.7


def test_a_crop_has_a_margin_and_stays_within_the_image() -> None:
    image = np.zeros((50, 60, 3), np.uint8)
    assert face_boxes.cropped(image, (20, 20, 10, 10)).shape == (12, 12, 3)
    assert face_boxes.cropped(image, (0, 30, 20, 20)).shape == (22, 22, 3)


def fake_camera(monkeypatch: pytest.MonkeyPatch, capture: Capture) -> None:
    monkeypatch.setattr(video, "_open", lambda *_: capture)
    monkeypatch.setattr(stage, "PATIENCE", 0.3)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_stream_that_stalls_ends_with_a_line_and_its_video(
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
    hangs: bool,
) -> None:
    hang = threading.Event() if hangs else None
    fake_camera(monkeypatch, Capture([blank((48, 64))], hang))
    target = tmp_path / "out.mp4"
    line = refused(network, "--camera", "0", "--headless", "--whole", "--save", target)
    assert line == "kdp: camera 0 gave no frame for 0.3 s; 1 frames were read before"
    assert len(frames_of(target)[0]) == 1
    if hang:
        hang.set()


def test_a_truncated_video_is_processed_up_to_its_end(
    network: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    source, target = tmp_path / "cut.avi", tmp_path / "out.mp4"
    with display.VideoFile(source) as file:
        for _ in range(60):
            file.write(blank((64, 64)), 10)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    line = refused(network, source, "--headless", "--whole", "--save", target)
    count = len(frames_of(target)[0])
    assert 10 < count < 50
    assert line == f"kdp: the video {source} ended after {count} of 60 frames; is it cut short?"


def test_ctrl_c_finishes_the_video(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    def pressed(image: ImageArray, *more: Any) -> ImageArray:
        drawn.append(image)
        if len(drawn) == 2:
            signal.raise_signal(signal.SIGINT)
        return image

    drawn: list[ImageArray] = []
    monkeypatch.setattr(labelled_boxes, "draw_boxes", pressed)
    target = tmp_path / "out.mp4"
    source = clip(tmp_path / "clip.avi")
    line = refused(network, source, "--headless", "--save", target, code=130)
    assert line == f"kdp: stopped after 2 frames; {target} is complete"
    assert len(frames_of(target)[0]) == 2


def test_q_in_the_window_ends_the_run(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    keys = iter([255, ord("q")])
    monkeypatch.setattr(display, "_x_server_answers", lambda _: True)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append("closed"))
    result = kdp(network, clip(tmp_path / "clip.avi"), "--save", tmp_path / "out.avi")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(tmp_path / "out.avi")]
    assert (len(shown), shown[-1]) == (3, "closed")
    assert len(frames_of(tmp_path / "out.avi")[0]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--camera", "63", "--headless"], "there is no camera 63"),
        (["clip.avi"], "no display here; --headless"),
        (["gone.mp4", "--headless"], "there is no video"),
        (["cl*.avi", "--headless"], "cl*.avi is a pattern of videos; give the name of one"),
        (["clip.avi", "--headless", "--save", "folder.mp4"], "folder.mp4 is a folder"),
        (["corrupt.mp4", "--headless"], "corrupt.mp4: it is missing, corrupt"),
        (["clip.avi", "--headless", "--save", "out.txt"], "a video ends in .mp4"),
        (["clip.avi", "--headless", "--save", "clip.avi"], "is the video itself"),
        (["clip.avi", "--headless", "--save", "a.png/out.mp4"], "cannot write"),
        (["clip.avi", "a.png"], "is a video; give one video alone"),
        (["clip.avi", "--camera", "0"], "give one of: images"),
        ([], "give one of: images"),
        (["a.png", "-o", "out.mp4"], "out.mp4 names a video; images are written to a folder"),
        (["clip.avi", "-o", "out"], "cannot write the stream to out: a video ends in .mp4"),
        (["a.png", "--x8"], "--x8 does not apply"),
    ],
)
def test_bad_input_is_a_one_line_error(
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: Callable[..., str],
    given: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    clip(tmp_path / "clip.avi")
    (tmp_path / "corrupt.mp4").write_bytes(b"no video" * 100)
    (tmp_path / "a.png").write_bytes(png_bytes(blank()))
    (tmp_path / "folder.mp4").mkdir()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    assert message in refused(network, *given)
    now = {path: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    assert now == before


def test_a_display_without_a_server_is_not_used(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":98765")
    source = clip(tmp_path / "clip.avi")
    message = refused(network, source, "--save", tmp_path / "out.mp4")
    assert message == "kdp: there is no display here; --headless prints JSON lines instead"
    assert list(tmp_path.iterdir()) == [source]


def test_csi_without_gstreamer_says_how_to_fix_it(
    network: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: False)
    line = refused(network, "--csi", "--headless")
    assert "built without it" in line
    assert "WITH_GSTREAMER=ON" in line


@pytest.mark.parametrize("option", [["--whole"], ["--headless"], ["--csi"], ["--camera", "0"]])
def test_super_resolution_rejects_the_options_of_faces(
    tmp_path: Path, refused: Callable[..., str], option: list[str]
) -> None:
    params = build("catanet", **TINY).state_dict()
    arch = Arch("catanet", TINY)
    save(tmp_path / "x2.pth", Artifact(params, arch, make_record("train", {})))
    assert f"{option[0]} does not apply" in refused(tmp_path / "x2.pth", "a.png", *option)
    assert "no image is given" in refused(tmp_path / "x2.pth")
