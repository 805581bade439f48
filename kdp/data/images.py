"""Reading and encoding images."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from kdp.data.image_head import read_head
from kdp.data.listing import list_files
from kdp.errors import KdpError
from kdp.files import check_regular
from kdp.log import log_once

ImageArray = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
}
"""Orientation in EXIF -> what turns the pixels upright. OpenCV turns WebP from 4.13 on only."""


def read_rgb(path: Path) -> ImageArray:
    """Read an image as (H, W, 3) uint8 RGB, upright, whatever its channels and bit depth.

    Transparent pixels are blended with white; a line says so once.

    Raises:
        KdpError: the file is missing, corrupt, cut off, of an unsupported kind or too large.
    """
    try:
        data = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise KdpError(f"cannot read the image {path}: {error.strerror or error}") from error
    head = read_head(io.BytesIO(data), path)
    image = _opaque(data) if head and head.transparent else None
    if image is None:
        image = _pixels(data, path, stored=head is not None)
    turn = UPRIGHT.get(head.orientation) if head else None
    return np.ascontiguousarray(turn(image)) if turn else image


def image_size(path: Path) -> tuple[int, int]:
    """Height and width as `read_rgb` returns them; the pixels are not decoded.

    Raises:
        KdpError: the file is missing, corrupt, cut off, of an unsupported kind or too large.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            head = read_head(file, path)
    except OSError as error:
        raise KdpError(f"cannot read the image {path}: {error.strerror}") from error
    if head is None:
        raise KdpError(f"cannot read the image {path}: it is missing or corrupt")
    return head.height, head.width


def _pixels(data: bytes, path: Path, stored: bool) -> ImageArray:
    """The pixels of a file, as they are stored or turned upright by OpenCV."""
    flags = cv2.IMREAD_IGNORE_ORIENTATION if stored else 0
    image = _decoded(data, cv2.IMREAD_COLOR | flags)
    if image is None:
        # Decodable but not as 8-bit colour: floating-point TIFF, for one.
        raw = _decoded(data, cv2.IMREAD_UNCHANGED)
        kind = None if raw is None else f"pixels of {raw.dtype} are not supported"
        raise KdpError(f"cannot read the image {path}: {kind or 'it is missing or corrupt'}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)  # in place: large images are large


def _opaque(data: bytes) -> ImageArray | None:
    """The pixels as they are stored, blended with white; None where Pillow cannot decode them."""
    try:
        pixels = _with_alpha(data, Image.open(io.BytesIO(data)))
    except Exception:  # a damaged file makes Pillow raise nearly anything; OpenCV will say so
        return None
    if (pixels[..., 3] == 255).all():
        return np.asarray(pixels[..., :3], np.uint8)
    color, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    log_once("transparent images are blended with white")
    blended: ImageArray = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return blended


def _with_alpha(data: bytes, image: Image.Image) -> Any:
    """(H, W, 4) RGBA of 8 bits.

    Of 16-bit pixels Pillow keeps too little to find the one value that is transparent.
    """
    value = image.info.get("transparency")
    deep = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = None if value is None else _decoded(data, deep)
    if pixels is None or pixels.dtype != np.uint16:
        return np.asarray(image.convert("RGBA"))
    color = pixels[..., ::-1]
    alpha = np.where((color == value).all(-1), 0, 255)
    return np.dstack([color >> 8, alpha])


def _decoded(data: bytes, flags: int) -> Any:
    """The image, or None. OpenCV reports some corrupt files by None and others by an exception."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None


def png_bytes(image: ImageArray) -> bytes:
    """Encode an (H, W, 3) uint8 RGB image as PNG."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def list_images(folder: Path) -> list[Path]:
    """Paths of the images directly in a folder, sorted by name.

    Raises:
        KdpError: the folder does not exist or has no image.
    """
    return list_files(folder, SUFFIXES, "image")
