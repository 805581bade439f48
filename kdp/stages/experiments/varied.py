"""Which settings differ between experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Settings = dict[str, Any]
"""Values of a configuration by dotted key."""


def varied(settings: Sequence[Settings]) -> list[Settings]:
    """What is not equal in all of them, with None where a key is missing."""
    keys = dict.fromkeys(key for own in settings for key in own)
    differing = [
        key for key in keys if any(own.get(key) != settings[0].get(key) for own in settings)
    ]
    return [{key: own.get(key) for key in differing} for own in settings]


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last words of each dotted key, as many as tell it from the others."""
    return [_short(key, [other for other in keys if other != key]) for key in keys]


def _short(key: str, others: Sequence[str]) -> str:
    words = key.split(".")
    for count in range(1, len(words)):
        ending = ".".join(words[-count:])
        if not any(f".{other}".endswith(f".{ending}") for other in others):
            return ending
    return key
