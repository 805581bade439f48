"""Pairs of high- and low-resolution images, from folders or from scikit-image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from kdp.data.images import ImageArray, list_images, png_bytes, read_rgb
from kdp.data.resize import bicubic_uint8
from kdp.errors import KdpError
from kdp.files import write_atomic

# How the LR file of an HR file is called: DIV2K and the benchmarks, and plain equal names.
LR_TEMPLATES = ("{stem}x{scale}{suffix}", "{stem}{suffix}", "x{scale}/{stem}x{scale}{suffix}")
EMBEDDED_TRAIN = ("coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
EMBEDDED_VALIDATION = ("astronaut", "chelsea")


@dataclass(frozen=True)
class Pair:
    """One image at two resolutions, read when asked for.

    Attributes:
        name: what to call it.
        hr: reads (H, W, 3) uint8, both sides multiples of the scale.
        lr: reads (H / scale, W / scale, 3) uint8.
    """

    name: str
    hr: Callable[[], ImageArray]
    lr: Callable[[], ImageArray]


def paired(hr: Path, lr: Path, scale: int, template: str | None = None) -> list[Pair]:
    """HR and LR folders; the LR name follows `template` or one of `LR_TEMPLATES`.

    Args:
        hr: folder of the high-resolution images.
        lr: folder of the low-resolution ones.
        scale: HR side divided by LR side.
        template: with `{stem}`, `{suffix}` and `{scale}`, relative to `lr`.

    Raises:
        KdpError: a folder is missing or empty, or an image has no partner.
    """
    templates = (template,) if template else LR_TEMPLATES
    pairs = []
    for path in list_images(hr):
        partner = _partner(path, lr, scale, templates)
        hr_image = partial(_sized, path, partner, scale)
        pairs.append(Pair(path.stem, hr_image, partial(read_rgb, partner)))
    return pairs


def hr_only(hr: Path, scale: int, cache_folder: Path) -> list[Pair]:
    """HR images alone; the LR ones are made by bicubic resizing and kept in a folder.

    Raises:
        KdpError: the folder is missing or empty.
    """
    key = hashlib.sha256(str(hr.resolve()).encode()).hexdigest()[:12]
    folder = cache_folder / f"{hr.name}-{key}-x{scale}"
    return [
        Pair(
            path.stem,
            partial(_cropped, path, scale),
            partial(_cached_lr, path, folder, scale),
        )
        for path in list_images(hr)
    ]


def embedded(scale: int, validation: bool) -> list[Pair]:
    """Photographs that scikit-image carries: five to train on, two others to validate on."""
    names = EMBEDDED_VALIDATION if validation else EMBEDDED_TRAIN
    return [
        Pair(
            name,
            partial(_photograph, name, scale),
            partial(_photograph_lr, name, scale),
        )
        for name in names
    ]


def crop_to_multiple(image: ImageArray, scale: int) -> ImageArray:
    """The top left part whose sides `scale` divides."""
    height, width = image.shape[0] // scale * scale, image.shape[1] // scale * scale
    return image[:height, :width]


def _partner(path: Path, lr: Path, scale: int, templates: Sequence[str]) -> Path:
    if not lr.is_dir():
        raise KdpError(f"the image folder {lr} does not exist")
    try:
        names = [t.format(stem=path.stem, suffix=path.suffix, scale=scale) for t in templates]
    except (KeyError, IndexError, ValueError) as error:
        raise KdpError(
            f"lr_template {templates[0]!r} may hold {{stem}}, {{suffix}} and {{scale}} only"
        ) from error
    for name in names:
        if (lr / name).is_file():
            return lr / name
    raise KdpError(f"no LR image for {path}: none of {', '.join(names)} is in {lr}")


def _sized(path: Path, partner: Path, scale: int) -> ImageArray:
    """The HR image, cut to its partner's size where the scale does not divide its own."""
    hr = read_rgb(path)
    height, width = (side * scale for side in read_rgb(partner).shape[:2])
    spare = hr.shape[0] - height, hr.shape[1] - width
    if not all(0 <= rest < scale for rest in spare):
        raise KdpError(
            f"{path} is {hr.shape[1]}x{hr.shape[0]}, but its LR image {partner} times {scale} "
            f"is {width}x{height}"
        )
    return hr[:height, :width]


def _cached_lr(path: Path, folder: Path, scale: int) -> ImageArray:
    stat = path.stat()
    target = folder / f"{path.stem}-{stat.st_mtime_ns:x}-{stat.st_size:x}.png"
    if target.is_file():
        return read_rgb(target)
    lr = bicubic_uint8(crop_to_multiple(read_rgb(path), scale), 1 / scale)
    write_atomic(target, png_bytes(lr))
    return lr


def _cropped(path: Path, scale: int) -> ImageArray:
    return crop_to_multiple(read_rgb(path), scale)


@cache
def _photograph(name: str, scale: int) -> ImageArray:
    from skimage import data

    return crop_to_multiple(np.ascontiguousarray(getattr(data, name)()[..., :3]), scale)


@cache
def _photograph_lr(name: str, scale: int) -> ImageArray:
    return bicubic_uint8(_photograph(name, scale), 1 / scale)
