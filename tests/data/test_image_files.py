"""Images are read upright, whole and opaque, whatever the format and the version of OpenCV."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from kdp.data.image_head import ORIENTATION
from kdp.data.images import ImageArray, image_size, read_rgb
from kdp.errors import KdpError
from tests.data.test_large_files import chunk

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
FORMATS: dict[str, dict[str, Any]] = {
    "jpg": {"quality": 95},
    "jpeg": {"progressive": True},
    "png": {},
    "webp": {"lossless": True, "exact": True},
    "tiff": {"compression": "tiff_lzw"},
    "tif": {},
    "bmp": {},
}
PLAIN_IMDECODE = cv2.imdecode


def encoded(image: Image.Image, suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    image.save(file, kind, **{**FORMATS[suffix], **options})
    return file.getvalue()


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def smooth() -> ImageArray:
    return cv2.resize(NOISE[:3, :4], (64, 48)).astype(np.uint8)


@pytest.mark.parametrize("turns_itself", [True, False], ids=["new OpenCV", "old OpenCV"])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_images_are_upright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, turns_itself: bool
) -> None:
    def without_turning(data: Any, flags: int) -> Any:
        return PLAIN_IMDECODE(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)

    if not turns_itself:
        monkeypatch.setattr(cv2, "imdecode", without_turning)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = encoded(Image.fromarray(smooth()), suffix, exif=exif)
        path = written(tmp_path / f"a.{suffix}", data)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        image = read_rgb(path)
        assert image.shape == expected.shape
        assert image_size(path) == image.shape[:2]
        assert np.abs(image.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_turned_once(tmp_path: Path, orientation: int) -> None:
    data = encoded(Image.fromarray(NOISE), "tif", tiffinfo={ORIENTATION: orientation})
    path = written(tmp_path / "a.tif", data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(read_rgb(path), expected)
    assert image_size(path) == expected.shape[:2]


@pytest.mark.parametrize("share", [0.5, 0.97])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_without_its_end_is_named(tmp_path: Path, suffix: str, share: float) -> None:
    data = encoded(Image.fromarray(NOISE), suffix)
    path = written(tmp_path / f"cut.{suffix}", data[: int(len(data) * share)])
    for read in (read_rgb, image_size):
        with pytest.raises(KdpError, match=r"cannot read the image .*cut\."):
            read(path)


def test_the_end_of_a_preview_is_not_the_end_of_the_image(tmp_path: Path) -> None:
    preview = encoded(Image.fromarray(NOISE), "jpg")
    exif = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    data = encoded(Image.fromarray(NOISE), "jpg")
    data = data[:2] + exif + data[2:]
    assert image_size(written(tmp_path / "whole.jpg", data)) == (48, 64)
    with pytest.raises(KdpError, match="its end is missing"):
        image_size(written(tmp_path / "cut.jpg", data[: len(data) - 100]))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
@pytest.mark.parametrize("appended", [b"\0" * 5000, b"a trailer of the camera" * 9])
def test_what_follows_the_image_does_no_harm(tmp_path: Path, suffix: str, appended: bytes) -> None:
    data = encoded(Image.fromarray(NOISE), suffix)
    plain = read_rgb(written(tmp_path / f"plain.{suffix}", data))
    path = written(tmp_path / f"a.{suffix}", data + appended)
    assert image_size(path) == (48, 64)
    np.testing.assert_array_equal(read_rgb(path), plain)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [("png", "RGBA"), ("png", "LA"), ("webp", "RGBA"), ("tiff", "RGBA"), ("png", "P")],
)
def test_transparent_pixels_are_blended_with_white(
    tmp_path: Path, messages: list[str], suffix: str, mode: str
) -> None:
    alpha = np.zeros((48, 64), np.uint8)
    alpha[:, 32:] = 255
    source = Image.fromarray(np.dstack([NOISE, alpha]))
    if mode == "P":
        source, options = Image.fromarray(alpha).convert("P"), {"transparency": 0}
    else:
        source, options = source.convert(mode), {}
    image = read_rgb(written(tmp_path / f"a.{suffix}", encoded(source, suffix, **options)))
    read_rgb(tmp_path / f"a.{suffix}")
    assert (image[:, :32] == 255).all()
    np.testing.assert_array_equal(image[:, 32:], np.asarray(source.convert("RGB"))[:, 32:])
    assert messages == ["transparent images are blended with white"]


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 100, np.uint8)
    pixels[..., 3] = 51
    path = written(tmp_path / "a.png", encoded(Image.fromarray(pixels), "png"))
    assert (read_rgb(path) == 224).all()


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_an_opaque_alpha_channel_changes_nothing(
    tmp_path: Path, messages: list[str], suffix: str
) -> None:
    source = Image.fromarray(NOISE)
    with_alpha = source.copy()
    with_alpha.putalpha(255)
    images = [
        read_rgb(written(tmp_path / f"{number}.{suffix}", encoded(image, suffix)))
        for number, image in enumerate((source, with_alpha))
    ]
    np.testing.assert_array_equal(*images)
    assert not messages


@pytest.mark.parametrize("kind", ["grey", "colour"])
@pytest.mark.parametrize("near", [0, 1])
def test_one_value_of_16_bits_is_transparent(tmp_path: Path, kind: str, near: int) -> None:
    """The value differs from another one in its low byte alone, which 8 bits do not hold."""
    channels = 1 if kind == "grey" else 3
    pixels = np.full((8, 8, channels), 30_001, ">u2")
    pixels[:, 4:] = 30_000 + near
    head = struct.pack(">IIBBBBB", 8, 8, 16, 0 if kind == "grey" else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    key = np.full(channels, 30_000, ">u2").tobytes()
    parts = [(b"IHDR", head), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    image = read_rgb(written(tmp_path / "a.png", data))
    assert (image[:, :4] == 30_001 >> 8).all()
    assert (image[:, 4:] == (30_001 >> 8 if near else 255)).all()
