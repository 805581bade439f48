"""A toy detection data set: filled shapes drawn on the textures of scikit-image.

It lets every command run without a download. A detector trained on it has learned nothing about
real objects.
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
"""Side of an image, in pixels."""
SMALLEST, LARGEST = 20, 90
"""Range of the longer side of a box, in pixels."""
MAX_SHAPES = 5
"""Most shapes in an image."""
MAX_OVERLAP, TRIES = 0.1, 20
"""Largest intersection, as a fraction of the smaller box, and attempts to place a shape."""
CORNERS = (48, 4, 3)
"""Number of corners of each class; 48 approximate a circle."""
TEXTURES = ("brick", "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "page")
"""Textures inside scikit-image's package; its others are downloaded on first use."""
SEED = 2025

Points = npt.NDArray[np.int32]
"""(K, 2): x, y of pixels."""


@dataclass(frozen=True)
class Shape:
    """A filled polygon.

    Attributes:
        label: class index.
        points: corners.
        colour: RGB.
    """

    label: int
    points: Points
    colour: tuple[int, int, int]

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """(4,): x0, y0, x1, y1 of the pixels it covers."""
        return np.concatenate([self.points.min(0), self.points.max(0) + 1]).astype(np.float32)


def toy_shapes(validation: bool) -> list[AnnotatedImage]:
    """Generated 160x160 images of one to five circles, squares and triangles.

    240 training or 60 validation images, the same at every call. Shapes have a random size, colour
    and rotation and overlap little. Images are drawn when they are read.
    """
    first = TRAINING_IMAGES if validation else 0
    count = VALIDATION_IMAGES if validation else TRAINING_IMAGES
    return [_annotated(number) for number in range(first, first + count)]


def _annotated(number: int) -> AnnotatedImage:
    shapes = _shapes(np.random.default_rng((SEED, number)))
    boxes = np.stack([shape.box for shape in shapes])
    labels = np.array([shape.label for shape in shapes], np.int64)
    return AnnotatedImage(f"shapes-{number:03d}", partial(_drawn, number), boxes, labels)


def _shapes(random: np.random.Generator) -> list[Shape]:
    shapes: list[Shape] = []
    # A shape that finds no free place after `TRIES` attempts is left out.
    for _ in range(random.integers(1, MAX_SHAPES + 1)):
        for _ in range(TRIES):
            shape = _shape(random)
            if all(_overlap(shape.box, other.box) <= MAX_OVERLAP for other in shapes):
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
    red, green, blue = (
        round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)
    )
    return Shape(label, np.rint(outline + place).astype(np.int32), (red, green, blue))


def _overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Intersection of two boxes as a fraction of the smaller one."""
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
    """A crop of a texture, flipped and tinted at random."""
    texture = _texture(TEXTURES[int(random.integers(len(TEXTURES)))])
    top, left = (int(random.integers(side - SIDE + 1)) for side in texture.shape[:2])
    crop = texture[top : top + SIDE, left : left + SIDE]
    if random.integers(2):
        crop = crop[:, ::-1]
    tinted: ImageArray = (crop * random.uniform(0.7, 1, 3)).astype(np.uint8)
    return tinted


@cache
def _texture(name: str) -> ImageArray:
    """(H, W, 3)."""
    from skimage import data

    texture: ImageArray = getattr(data, name)()
    return texture if texture.ndim == 3 else np.repeat(texture[..., None], 3, axis=2)
