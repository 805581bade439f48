"""Reading YAML of unknown origin: aliases can make gigabytes of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kdp.errors import KdpError
from kdp.files import check_regular
from kdp.node_count import TooLargeError, count_nodes

MAX_CHARACTERS = 200_000
MAX_DIGITS, INTEGER = 1000, "tag:yaml.org,2002:int"
"""Python reads no whole number of more than 4300 digits, and writes none."""
MAX_VALUES = 100_000
"""Keys and values of a file, with all aliases written out."""


def yaml_text(path: Path) -> str:
    """The text of a YAML file that is safe to parse; characters that are no UTF-8 are replaced.

    Raises:
        KdpError: it is too long, or its aliases stand for too much.
        OSError: it cannot be read.
        yaml.YAMLError: it is no YAML.
    """
    check_regular(path)
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MAX_CHARACTERS + 1)
    if len(text) > MAX_CHARACTERS:
        raise KdpError(f"{path} is longer than {MAX_CHARACTERS:,} characters: refused")
    try:
        count_nodes(yaml.compose(text, yaml.SafeLoader), _children, MAX_VALUES)
    except TooLargeError as error:
        raise KdpError(f"{path} is refused: {error}") from error
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    return text


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.ScalarNode):
        return []
    if node.tag == INTEGER and len(node.value) > MAX_DIGITS:
        raise TooLargeError(f"it holds a number of {len(node.value):,} digits")
    return [node.value]
