"""What an image file says before its pixels are decoded, and whether its end is there."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from kdp import MAX_PIXELS
from kdp.errors import KdpError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF tag of the orientation, and its values that swap width and height."""
TRANSPARENT = ("RGBA", "LA", "PA")
"""Pillow's modes with an alpha channel."""
JPEG_SCAN, JPEG_END = b"\xff\xda", b"\xff\xd9"
TIFF_PARTS = ((273, 279), (324, 325))
"""Tags of the offsets and lengths of strips and of tiles."""


@dataclass(frozen=True)
class ImageHead:
    """What a file says of its image.

    Attributes:
        height, width: in pixels, upright.
        orientation: how to turn the stored pixels upright, as in EXIF; 1 for not at all.
        transparent: whether pixels may be transparent.
    """

    height: int
    width: int
    orientation: int
    transparent: bool


def read_head(file: BinaryIO, path: Path) -> ImageHead | None:
    """Read the header of an image, and make sure that the file goes on to its end.

    Args:
        file: the image.
        path: its name for messages.

    Returns:
        None where Pillow cannot read it; OpenCV reads a few kinds more.

    Raises:
        KdpError: the end of the file is missing, or the image has too many pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of half as many pixels, and of damaged EXIF data
            image = Image.open(file, formats=FORMATS)
            head, complete = _head(image), _is_complete(file, image)
    except Image.DecompressionBombError:
        head, complete = ImageHead(MAX_PIXELS, MAX_PIXELS, 1, False), True
    except Exception:  # a damaged file makes Pillow raise nearly anything
        return None
    if head.height * head.width > MAX_PIXELS:
        raise KdpError(f"the image {path} has more than {MAX_PIXELS / 1e6:.0f} megapixels: refused")
    if not complete:
        raise KdpError(f"cannot read the image {path}: its end is missing")
    return head


def _head(image: Image.Image) -> ImageHead:
    width, height = image.size
    # Of TIFF, OpenCV and Pillow turn the pixels themselves, and Pillow reports no EXIF.
    orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    if orientation in TURNED:
        width, height = height, width
    transparent = image.mode in TRANSPARENT or "transparency" in image.info
    return ImageHead(height, width, orientation, transparent)


def _is_complete(file: BinaryIO, image: Image.Image) -> bool:
    """Whether the file has the end that its format marks or announces."""
    size = file.seek(0, os.SEEK_END)
    if image.format in ("JPEG", "MPO"):
        return _ends(file, size, JPEG_END) or _jpeg_ends(file)
    if image.format == "PNG":
        return _ends(file, size, b"IEND\xaeB`\x82") or b"IEND" in _whole(file)
    if image.format == "WEBP":
        return _number(file, 4) + 8 <= size + 1  # a last byte of padding may be missing
    details: Any = image  # of which Pillow declares not all
    if image.format == "BMP":
        codec, _, offset, options = details.tile[0]
        return codec != "raw" or offset + options[1] * image.height <= size
    tags = getattr(details, "tag_v2", {})
    parts = [zip(tags[a], tags[b], strict=True) for a, b in TIFF_PARTS if a in tags and b in tags]
    return all(offset + length <= size for part in parts for offset, length in part)


def _ends(file: BinaryIO, size: int, end: bytes) -> bool:
    """Whether a file ends like this, but for zeros and line breaks."""
    file.seek(max(0, size - 64))
    return file.read().rstrip(b"\0\r\n").endswith(end)


def _jpeg_ends(file: BinaryIO) -> bool:
    """Whether the end of the image is inside the file: a camera may have appended more.

    A preview among the metadata has an end too, so that only what follows them counts.
    """
    data, position = _whole(file), 2
    while data[position : position + 2] not in (JPEG_SCAN, b""):
        if data[position : position + 2] == b"\xff\xff":  # filling before a marker
            position += 1
        else:
            position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    return JPEG_END in data[position:]


def _whole(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _number(file: BinaryIO, offset: int) -> int:
    file.seek(offset)
    return int.from_bytes(file.read(4), "little")
