"""Validation of arguments that several networks share: class names and the size of images."""

from __future__ import annotations

from collections.abc import Sequence

MAX_SIDE = 4096
"""Of an input image: 200 MB in float32."""


def check_image_size(image_size: object, least: int, step: int = 1) -> None:
    """Refuse a side of square inputs, in pixels, that is not usable.

    Args:
        image_size: the value, of any type.
        least: the smallest one.
        step: it must be a multiple of this.

    Raises:
        ValueError: it is no whole number, too small, too large, or no multiple.
    """
    # `type` and not isinstance: True is an int in Python.
    if type(image_size) is not int or image_size < least or image_size % step:
        multiple = f"a multiple of {step}" if step > 1 else f"a whole number >= {least}"
        raise ValueError(f"image_size must be {multiple}, not {image_size!r}")
    if image_size > MAX_SIDE:
        raise ValueError(f"image_size must be at most {MAX_SIDE}, not {image_size}")


def check_classes(classes: Sequence[str], least: int) -> None:
    """Refuse anything but a list of distinct names.

    Raises:
        ValueError: fewer than `least`, not text, or one of them twice.
    """
    names = list(classes) if isinstance(classes, (list, tuple)) else []
    if len(names) < least or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"classes must be {least} names or more, not {classes!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"classes must differ, and these do not: {', '.join(names)}")
