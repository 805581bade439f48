"""Labelled images: one folder per class, or a toy data set of scikit-image's small faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from kdp.data.content import without_contradictions
from kdp.data.images import ImageArray, list_images, read_rgb
from kdp.errors import KdpError, join_names
from kdp.log import log_once

TOY_FACES, TOY_VALIDATION = 100, 20
"""Number of faces, and of those that are held out for validation."""


@dataclass(frozen=True)
class LabelledImage:
    """An image with its class, read on demand.

    Attributes:
        name: how messages call the image.
        label: index of its class.
        read: returns (H, W, 3) uint8 RGB.
        files: that it is read from; none where it is generated.
    """

    name: str
    label: int
    read: Callable[[], ImageArray]
    files: tuple[Path, ...] = ()

    @property
    def annotation(self) -> str:
        """Its class, for `kdp.data.content`."""
        return str(self.label)


def class_folders(folder: Path, classes: Sequence[str]) -> list[LabelledImage]:
    """The readable images of `folder/<class>/`, class by class, sorted by name.

    Corrupt images, and images that two classes have, are left out with a log message. Every image
    is decoded once for this check, so that a training does not stop at a corrupt file hours later.

    Raises:
        KdpError: a class has no folder or no readable image, or a folder matches no class.
    """
    if not folder.is_dir():
        raise KdpError(f"the folder {folder} does not exist")
    unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes)
    if unknown:
        raise KdpError(f"{folder} has the folder {unknown[0]!r}; classes are {', '.join(classes)}")
    images: list[LabelledImage] = []
    corrupt: list[LabelledImage] = []
    for label, name in enumerate(classes):
        for path in list_images(folder / name):
            image = LabelledImage(f"{name}/{path.name}", label, partial(read_rgb, path), (path,))
            (images if _readable(image) else corrupt).append(image)
    images = without_contradictions(images, str(folder))
    present = {image.label for image in images}
    absent = [name for label, name in enumerate(classes) if label not in present]
    if absent:
        raise KdpError(f"{folder} has no readable image of the class {absent[0]!r}")
    if corrupt:
        names = join_names([image.name for image in corrupt], 5)
        log_once(f"{folder}: {len(corrupt)} corrupt images left out: {names}")
    return images


def _readable(image: LabelledImage) -> bool:
    try:
        image.read()
    except KdpError:
        return False
    return True


def toy_faces(validation: bool) -> list[LabelledImage]:
    """scikit-image's hundred 25x25 faces, plain and with a mask drawn over mouth and nose.

    A toy data set for trying commands without a download: 80 faces to train on and 20 to validate
    on, each of them twice.
    """
    first, last = (0, TOY_VALIDATION) if validation else (TOY_VALIDATION, TOY_FACES)
    return [
        LabelledImage(f"{kind}_{number:03d}", label, partial(_toy_face, number, label == 0))
        for label, kind in enumerate(("masked", "plain"))
        for number in range(first, last)
    ]


def _toy_face(number: int, masked: bool) -> ImageArray:
    face = cv2.resize(_grey_faces()[number], (128, 128), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(face[..., None], 3, axis=2)
    if masked:
        random = np.random.default_rng(number)
        color = tuple(int(c) for c in random.integers(120, 256, 3))
        top, bottom = (int(random.integers(*span)) for span in ((64, 76), (112, 124)))
        corners = [
            (24, top),
            (64, top - 8),
            (104, top),
            (92, bottom),
            (64, bottom + 4),
            (36, bottom),
        ]
        cv2.fillPoly(image, [np.array(corners)], color, lineType=cv2.LINE_AA)
    return image


@lru_cache(maxsize=1)
def _grey_faces() -> ImageArray:
    from skimage.data import lfw_subset

    return (lfw_subset()[:TOY_FACES] * 255).astype(np.uint8)
