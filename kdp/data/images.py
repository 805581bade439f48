"""Reading and encoding images."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from kdp import MAX_PIXELS
from kdp.errors import KdpError

ImageArray = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF tag of the orientation, and its values that swap width and height."""


def read_rgb(path: Path) -> ImageArray:
    """Read an image as (H, W, 3) uint8 RGB, whatever its channels and bit depth.

    Raises:
        KdpError: the file is missing, corrupt or of an unsupported kind.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8) if path.is_file() else np.empty(0, np.uint8)
    except OSError as error:
        raise KdpError(f"cannot read the image {path}: {error.strerror or error}") from error
    if _is_too_large(data):
        raise KdpError(f"the image {path} has more than {MAX_PIXELS / 1e6:.0f} megapixels: refused")
    image = _decoded(data, cv2.IMREAD_COLOR)
    if image is None:
        # Decodable but not as 8-bit colour: floating-point TIFF, for one.
        raw = _decoded(data, cv2.IMREAD_UNCHANGED)
        kind = None if raw is None else f"pixels of {raw.dtype} are not supported"
        raise KdpError(f"cannot read the image {path}: {kind or 'it is missing or corrupt'}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)  # in place: large images are large


def _is_too_large(data: npt.NDArray[np.uint8]) -> bool:
    """Whether the header names more pixels than are decoded; False where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about half as many pixels
            with Image.open(io.BytesIO(data.tobytes()), formats=_FORMATS) as image:
                return image.width * image.height > MAX_PIXELS
    except Image.DecompressionBombError:
        return True
    except Exception:  # OpenCV reads more than Pillow does, under a limit of its own
        return False


def image_size(path: Path) -> tuple[int, int]:
    """Height and width as `read_rgb` returns them, from the file's header alone.

    Raises:
        KdpError: the file is missing, corrupt or of an unsupported kind.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # OpenCV rotates every image by its EXIF orientation, Pillow only TIFF (where it then
            # reports no EXIF), so the sides are swapped here for the other formats.
            swapped = "exif" in image.info and image.getexif().get(ORIENTATION) in TURNED
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise KdpError(f"cannot read the image {path}: it is missing or corrupt") from error
    return (width, height) if swapped else (height, width)


def _decoded(data: npt.NDArray[np.uint8], flags: int) -> Any:
    """The image, or None. OpenCV reports some corrupt files by None and others by an exception."""
    try:
        return cv2.imdecode(data, flags) if data.size else None
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
    if not folder.is_dir():
        raise KdpError(f"the image folder {folder} does not exist")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise KdpError(f"no images in {folder} (looked for {', '.join(sorted(SUFFIXES))})")
    return paths
