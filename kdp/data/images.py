"""Reading pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from kdp.errors import KdpError

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


def read_rgb(path: Path) -> Picture:
    """An (H, W, 3) uint8 RGB picture.

    Raises:
        KdpError: missing or corrupt, by name.
    """
    data = np.fromfile(path, dtype=np.uint8) if path.is_file() else np.empty(0, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise KdpError(f"cannot read the picture {path}: it is missing or corrupt")
    return np.ascontiguousarray(image[..., ::-1])


def png_bytes(image: Picture) -> bytes:
    """PNG encoding of an (H, W, 3) uint8 RGB picture."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def list_images(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by name.

    Raises:
        KdpError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise KdpError(f"the image folder {folder} does not exist")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise KdpError(f"no images in {folder} (looked for {', '.join(sorted(SUFFIXES))})")
    return paths
