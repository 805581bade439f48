"""Where `kdp infer` finds its cascade of faces, and what it says about images without faces."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from kdp.data.images import png_bytes
from kdp.errors import KdpError
from kdp.tasks.classification import face_boxes
from kdp.tasks.classification.face_boxes import CASCADE, FOLDERS, FaceFinder
from tests.tasks.test_faces import clip, face, kdp, lines, network  # noqa: F401
from tests.videos import blank

SOURCE = Path(cv2.data.haarcascades) / CASCADE


@pytest.fixture
def no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An OpenCV without `cv2.data`, as Debian's and JetPack's; the prefix of the system."""
    monkeypatch.delattr(cv2, "data")
    monkeypatch.setattr(face_boxes, "PREFIXES", (str(tmp_path / "none"), str(tmp_path / "usr")))
    return tmp_path / "usr"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_cascade_of_the_system_is_found(no_package: Path, folder: str) -> None:
    (no_package / folder).mkdir(parents=True)
    shutil.copy(SOURCE, no_package / folder)
    assert len(FaceFinder()(face())) == 1


def test_a_cascade_that_cannot_be_read_is_passed_over(no_package: Path) -> None:
    for folder, content in zip(FOLDERS, (b"<opencv_storage/>", SOURCE.read_bytes()), strict=False):
        (no_package / folder).mkdir(parents=True)
        (no_package / folder / CASCADE).write_bytes(content)
    assert len(FaceFinder()(face())) == 1


def test_without_any_cascade_the_package_is_named(no_package: Path) -> None:
    with pytest.raises(KdpError, match="apt install opencv-data"):
        FaceFinder()


def test_a_package_without_its_cascades_is_no_obstacle(
    no_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A headless build may have `cv2.data` and no files."""
    monkeypatch.setattr(cv2, "data", type("data", (), {"haarcascades": "/nowhere/"}), raising=False)
    (no_package / FOLDERS[0]).mkdir(parents=True)
    shutil.copy(SOURCE, no_package / FOLDERS[0])
    assert len(FaceFinder()(face())) == 1


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images, one of them with a face."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, image in (("a", face()), ("b", blank()), ("c", blank((40, 30)))):
        (tmp_path / "photos" / f"{name}.png").write_bytes(png_bytes(image))
    return tmp_path / "photos"


@pytest.mark.parametrize("more", [(), ("--headless",)])
def test_images_without_a_face_are_counted(
    network: Path,  # noqa: F811
    photos: Path,
    more: tuple[str, ...],
) -> None:
    assert "no face in 2 of 3 images; try --whole" in kdp(network, photos, *more).stderr


def test_nothing_is_advised_where_every_image_has_a_face(network: Path, photos: Path) -> None:  # noqa: F811
    assert "no face" not in kdp(network, photos / "a.png").stderr
    assert "no face" not in kdp(network, photos, "--whole").stderr


def test_frames_without_a_face_are_counted(network: Path, photos: Path) -> None:  # noqa: F811
    result = kdp(network, clip(photos / "clip.avi"), "--headless")
    assert "no face in 2 of 5 frames; try --whole" in result.stderr


def test_detector_and_classifier_are_timed_apart(network: Path, photos: Path) -> None:  # noqa: F811
    images = lines(kdp(network, photos, "--headless"))
    frames = lines(kdp(network, clip(photos / "clip.avi"), "--headless"))
    for line in (*images, *frames):
        assert line["detector_ms"] > 0
        assert line["detector_ms"] + line.get("classifier_ms", 0) <= line["ms"] + 0.02
    (whole,) = lines(kdp(network, photos / "a.png", "--whole", "--headless"))
    assert "detector_ms" not in whole
