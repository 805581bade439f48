"""Empty mappings, which clear a key instead of being merged into it.

OmegaConf merges mappings key by key, so an empty one would leave everything as it is. A text that
no configuration can hold takes its place while files and overrides are merged: a text replaces a
mapping, and a mapping that comes later replaces a text.
"""

from __future__ import annotations

import re
from typing import Any

_EMPTY = "an empty mapping\0"
"""Texts with a null character are refused in every section."""
_QUOTED_OR_EMPTY = re.compile(r"""('(?:\\.|[^'])*'|"(?:\\.|[^"])*")|\{\s*\}""", re.DOTALL)


def mark_empty(values: Any) -> dict[Any, Any]:
    """The mapping of a file with a text in place of each empty mapping inside it."""
    return {key: _marked(value) for key, value in values.items()}


def _marked(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return mark_empty(value) if value else _EMPTY


def mark_empty_text(value: str) -> str:
    """The same for a value in Hydra's grammar, outside of quotes."""
    return _QUOTED_OR_EMPTY.sub(lambda match: match[1] or f"'{_EMPTY}'", value)


def restore_empty(value: Any) -> Any:
    """The merged values with empty mappings."""
    if isinstance(value, dict):
        return {key: restore_empty(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore_empty(item) for item in value]
    return {} if value == _EMPTY else value
