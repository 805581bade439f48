"""References `${...}` between the keys of a configuration, before they are replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdp.node_count import count_nodes

MAX_VALUES = 100_000
"""Keys, values and pieces of text of a configuration, with all references written out."""
_REFERENCE = re.compile(r"\$\{\s*(?:oc\.(?!env)[\w.]+\s*:\s*)?(\.*)([\w-][\w.\[\]-]*)\s*[,}]")
"""`${key}`, or the first argument of one of OmegaConf's functions, which is a key too."""
_COMPUTED = re.compile(r"\$\{(?:[^:}]*|\s*oc\.(?!env)[^}]*)\$\{", re.DOTALL)


@dataclass(frozen=True)
class _Place:
    """A value and the keys that lead to it."""

    value: Any
    keys: tuple[str, ...]


def check_references(content: Any) -> None:
    """Refuse references that multiply: ten lines that each name the one before ten times.

    Args:
        content: mappings, lists and text, with the references as text.

    Raises:
        TooLargeError: written out, there are too many values, or the references lead in a circle.
        ValueError: a key is itself the value of a reference, so it is not known yet.
    """
    places: dict[tuple[str, ...], _Place] = {}

    def place(keys: tuple[str, ...]) -> _Place | None:
        if keys not in places:
            value = content
            for key in keys:
                value = _item(value, key)
                if value is None:
                    return None
            places[keys] = _Place(value, keys)
        return places[keys]

    def children(node: Any) -> list[Any]:
        if not isinstance(node, _Place):
            return []
        if isinstance(node.value, str):
            return [node.value, *_referred(node, place)]
        keys = node.value if isinstance(node.value, Mapping) else range(_length(node.value))
        return list(filter(None, (place((*node.keys, str(key))) for key in keys)))

    count_nodes(_Place(content, ()), children, MAX_VALUES)


def _referred(node: _Place, place: Any) -> list[_Place]:
    """What the references of a text name, as often as they do."""
    if _COMPUTED.search(node.value):
        raise ValueError(f"{'.'.join(node.keys)}: a reference may not name a key by a reference")
    targets = []
    for dots, key in _REFERENCE.findall(node.value):
        base = node.keys[: len(node.keys) - len(dots)] if dots else ()
        targets.append(place((*base, *filter(None, re.split(r"[.\[\]]+", key)))))
    # One to itself is left to OmegaConf, which names it.
    return [target for target in targets if target not in (None, node)]


def _item(value: Any, key: str) -> Any:
    """The value at a key or an index; None if there is none."""
    if isinstance(value, Mapping):
        return next((item for name, item in value.items() if str(name) == key), None)
    if isinstance(value, list) and key.isdigit() and int(key) < len(value):
        return value[int(key)]
    return None


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0
