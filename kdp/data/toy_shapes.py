"""Objects to find without any data: a toy, of filled shapes drawn on scikit-image's textures.

A detector that finds them knows nothing of real objects. They are there so that every command can
be tried with nothing downloaded.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
import numpy.typing as npt

from kdp.data.boxes import AnnotatedImage
from kdp.data.images import ImageArray

CLASSES = ("circle", "square", "triangle")
TRAINING_IMAGES, VALIDATION_IMAGES = 240, 60
SIDE = 160
"""Of an image, in pixels."""
SMALLEST, LARGEST = 20, 90
"""Longer side of a box, in pixels."""
MOST = 5
"""Shapes in an image."""
OVERLAP, TRIES = 0.1, 20
"""Share of the smaller of two boxes that both may cover, and how often a place is looked for."""
CORNERS = (48, 4, 3)
"""Of each class."""
TEXTURES = ("brick", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "page")
"""They come with scikit-image itself."""
SEED = 2025

Points = npt.NDArray[np.int32]
"""(K, 2): x, y of pixels."""


@dataclass(frozen=True)
class Shape:
    """A filled polygon.

    Attributes:
        label: index of its class.
        points: its corners.
        colour: RGB.
    """

    label: int
    points: Points
    colour: tuple[int, int, int]

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """(4,): the pixels it covers, x0, y0, x1, y1."""
        return np.concatenate([self.points.min(0), self.points.max(0) + 1]).astype(np.float32)


def toy_shapes(validation: bool) -> list[AnnotatedImage]:
    """Generated images, 160x160, of one to five circles, squares and triangles; a toy, see above.

    240 to train on, or 60 others; the same ones at every call. Shapes have a random size, colour
    and turn, overlap little, and are drawn when they are read.
    """
    first = TRAINING_IMAGES if validation else 0
    count = VALIDATION_IMAGES if validation else TRAINING_IMAGES
    return [_boxed(number) for number in range(first, first + count)]


def _boxed(number: int) -> AnnotatedImage:
    shapes = _shapes(np.random.default_rng((SEED, number)))
    boxes = np.stack([shape.box for shape in shapes])
    labels = np.array([shape.label for shape in shapes], np.int64)
    return AnnotatedImage(f"shapes-{number:03d}", partial(_drawn, number), boxes, labels)


def _shapes(random: np.random.Generator) -> list[Shape]:
    shapes: list[Shape] = []
    for _ in range(random.integers(1, MOST + 1)):
        for _ in range(TRIES):
            shape = _shape(random)
            if all(_common(shape.box, other.box) <= OVERLAP for other in shapes):
                shapes.append(shape)
                break
    return shapes


def _shape(random: np.random.Generator) -> Shape:
    label = int(random.integers(len(CLASSES)))
    angles = 2 * np.pi * (random.random() + np.arange(CORNERS[label]) / CORNERS[label])
    outline = np.column_stack([np.cos(angles), np.sin(angles)])
    outline -= outline.min(0)
    outline *= (random.uniform(SMALLEST, LARGEST) - 1) / outline.max()
    place = random.uniform(0, SIDE - 1 - outline.max(0))
    hue, saturation, value = random.uniform((0, 0.5, 0.4), 1)
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return Shape(label, np.rint(outline + place).astype(np.int32), (red, green, blue))


def _common(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """What two boxes share, of the smaller one."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    smaller = min((box[2:] - box[:2]).prod() for box in (a, b))
    return float(np.maximum(sides, 0).prod() / smaller)


def _drawn(number: int) -> ImageArray:
    """(160, 160, 3)."""
    image = _background(np.random.default_rng((SEED, number, 1)))
    for shape in _shapes(np.random.default_rng((SEED, number))):
        cv2.fillPoly(image, [shape.points], shape.colour)
    return image


def _background(random: np.random.Generator) -> ImageArray:
    """A piece of a texture, flipped and tinted at random."""
    texture = _texture(TEXTURES[int(random.integers(len(TEXTURES)))])
    top, left = (int(random.integers(side - SIDE + 1)) for side in texture.shape[:2])
    piece = texture[top : top + SIDE, left : left + SIDE]
    if random.integers(2):
        piece = piece[:, ::-1]
    tinted: ImageArray = (piece * random.uniform(0.7, 1, 3)).astype(np.uint8)
    return tinted


@cache
def _texture(name: str) -> ImageArray:
    """(H, W, 3)."""
    from skimage import data

    texture: ImageArray = getattr(data, name)()
    return texture if texture.ndim == 3 else np.repeat(texture[..., None], 3, axis=2)
