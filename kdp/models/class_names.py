"""Validation of class names from configuration files."""

from __future__ import annotations

from collections.abc import Sequence


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
