"""`kdp configs`: list, show and copy the configurations that `--config` finds."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

import yaml
from pydantic import BaseModel

from kdp.config.compose import load_config
from kdp.config.lookup import find_config, levels
from kdp.errors import KdpError
from kdp.serialize import json_text
from kdp.shipped import OVERLAYS
from kdp.written import write_output

_WIDTH = 100
"""Columns; a sentence that does not fit behind its key stands above it."""
_DIRECTIVES = ("# yaml-language-server:", "# @package")
"""Comments at the top of a file that are for programs."""


@dataclass(frozen=True)
class Listed:
    """A configuration or an overlay.

    Attributes:
        name: what finds it: a path for `--config`, a choice GROUP=NAME for an overlay.
        description: the first line of its first comment.
        path: the file.
    """

    name: str
    description: str
    path: Path


def list_configs() -> list[Listed]:
    """The configurations of `configs/` and of the package, then the overlays.

    A name is listed once, for the file that it finds.
    """
    listed: dict[str, Listed] = {}
    for level in levels():
        for file in level.files:
            name, path = _name(file), level.root / file
            listed.setdefault(name, Listed(name, _description(path), path))
    return sorted(
        listed.values(),
        key=lambda entry: ("=" in entry.name, str(_root(entry)) != "configs", "/" in entry.name),
    )


def to_text(listed: Sequence[Listed]) -> str:
    """A list for people: names, descriptions, and the folder that each group comes from."""
    width = max(len(entry.name) for entry in listed)
    groups = groupby(listed, key=lambda entry: ("=" in entry.name, _root(entry)))
    parts = []
    for (overlays, root), entries in groups:
        what = "overlays, added to a configuration by name=choice" if overlays else "configurations"
        rows = [f"{entry.name:<{width}}  {entry.description}".rstrip() for entry in entries]
        parts.append("\n".join([f"{what} ({root})", *(f"  {row}" for row in rows)]))
    return "\n\n".join(parts)


def to_json(listed: Sequence[Listed]) -> str:
    """The list for programs."""
    return json_text([asdict(entry) | {"path": str(entry.path)} for entry in listed]).rstrip()


def show_config(name: Path, overrides: Sequence[str] = ()) -> str:
    """A configuration as it is composed, with all defaults and the sentence of every key.

    Raises:
        KdpError: it is not found, or a key or value does not fit.
    """
    config = load_config(name, overrides)
    return "\n".join(_lines(config, config.plain(), 0)) + "\n"


def copy_config(name: Path, target: Path | None = None, overwrite: bool = False) -> Path:
    """Copy a configuration into the current folder.

    The files of its defaults list stay where they are and are found from there.

    Args:
        name: as `--config` takes it.
        target: the copy; default: the file's own name in the current folder.
        overwrite: replace a file that exists.

    Raises:
        KdpError: it is not found, or the copy exists or cannot be written.
    """
    source = find_config(name)
    target = target or Path(source.name)
    if target.exists() and (target.samefile(source) or not overwrite):
        raise KdpError(f"{target} exists; give another name with -o, or --overwrite")
    lines = source.read_text().splitlines(keepends=True)
    # The path of the schema is relative to where the file was.
    text = "".join(line for line in lines if not line.startswith(_DIRECTIVES[0]))
    write_output(target, text.encode())
    return target


def _root(entry: Listed) -> Path:
    """The folder of configurations that a file lies in."""
    return next(level.root for level in levels() if entry.path.is_relative_to(level.root))


def _name(file: PurePath) -> str:
    if file.parts[0] != OVERLAYS:
        return file.as_posix()
    return f"{'/'.join(file.parts[1:-1])}={file.stem}"


def _description(path: Path) -> str:
    """The first line of a file's first comment."""
    for line in path.read_text().splitlines():
        if line.startswith(_DIRECTIVES):
            continue
        return line.removeprefix("#").strip() if line.startswith("#") else ""
    return ""


def _lines(section: BaseModel, plain: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The keys of a section as YAML, each with its sentence as a comment."""
    fields = type(section).model_fields
    for key in sorted(plain, key=lambda key: key != "kind"):
        description = " ".join((fields[key].description or "").split())
        value = getattr(section, key)
        yield from _entry(key, value, plain[key], description, depth)


def _entry(key: str, value: Any, plain: Any, description: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, BaseModel) and not description:
        description = (type(value).__doc__ or "").split("\n\n")[0]
    nested = list(_nested(value, plain, depth))
    text = f"{indent}{key}:" if nested else f"{indent}{key}: {_scalar(plain)}"
    if description and len(text) + len(description) + 4 <= _WIDTH:
        yield f"{text}  # {description}"
    else:
        above = f"{indent}# "
        yield from textwrap.wrap(description, _WIDTH, initial_indent=above, subsequent_indent=above)
        yield text
    yield from nested


def _nested(value: Any, plain: Any, depth: int) -> Iterator[str]:
    """The lines below a key whose value is a section, or holds some."""
    if isinstance(value, BaseModel):
        yield from _lines(value, plain, depth + 1)
    elif isinstance(value, dict) and any(isinstance(part, BaseModel) for part in value.values()):
        for name, part in value.items():
            yield from _entry(_scalar(name), part, plain[name], "", depth + 1)
    elif isinstance(value, list) and any(isinstance(part, BaseModel) for part in value):
        for part, part_plain in zip(value, plain, strict=True):
            first, *rest = _lines(part, part_plain, depth + 2)
            yield f"{'  ' * (depth + 1)}- {first.lstrip()}"
            yield from rest


def _scalar(value: Any) -> str:
    """A value without sections on one line: JSON, which is YAML, but for plain text."""
    try:
        if isinstance(value, str) and "\n" not in value and yaml.safe_load(value) == value:
            return value
    except yaml.YAMLError:
        pass  # text that YAML reads as something else, such as a bracket, is quoted
    return json.dumps(value, ensure_ascii=False)
