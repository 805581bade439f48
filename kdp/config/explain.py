"""One line for what the schema found wrong."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kdp.config import registry
from kdp.config.data import SamplesConfig
from kdp.config.schema import full_schema
from kdp.errors import suggest

Location = tuple[int | str, ...]


def explain(error: ValidationError, groups: Collection[str] = ()) -> str:
    """The first fault in one line, with the nearest key or kind that exists.

    Args:
        error: what the schema found.
        groups: of overlays; an override such as `faces=real` may mean one of them.
    """
    first = error.errors()[0]
    location = _without_kinds(first["loc"])
    where = ".".join(str(part) for part in location)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"the key {where!r} is needed and missing{more}"
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1]) + ([] if location[1:] else sorted(groups))
        nearest = suggest(str(location[-1]), known)
        return f"unknown key {where!r}; {nearest}{more}"
    if first["type"] == "union_tag_invalid":
        kind = str(first["input"]["kind"])
        return f"{where}.kind: no kind {kind!r}; {suggest(kind, registry.data_kinds())}{more}"
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # a section whose keys do not go together
        return f"{where}: {message}{more}" if where else message + more
    return f"{where}: {message}, got {reprlib.repr(first['input'])}{more}"


def _without_kinds(location: Location) -> Location:
    """A place in the file: pydantic names the kind after an entry, where no key is."""
    entry = {"data": 1, "evaluation": 2}.get(str(location[0]) if location else "")
    if entry is None or len(location) <= entry:
        return location
    return location[:entry] + location[entry + 1 :]


def _known_keys(location: Location) -> list[str]:
    """Keys of the schema at a place in the file, as pydantic names it."""
    node: Any = full_schema()
    for part in location:
        node = _inside(node, part)
    return sorted({key for section in _members(node) for key in _fields(section)})


def types_at(location: Location) -> set[Any]:
    """What a value at a place in the file may be, but for nothing at all; empty if unknown."""
    node: Any = full_schema()
    try:
        for part in location:
            node = _inside(node, part)
    except KeyError:
        return set()
    return set(_members(node)) - {type(None)}


def _inside(node: Any, part: int | str) -> Any:
    """The type of what lies under a key, at a position, or of one kind of samples."""
    for member in _members(node):
        if get_origin(member) in (dict, list):
            return get_args(member)[-1]
        if _kind(member) == part:
            return member
        if part in _fields(member):
            return _fields(member)[str(part)].annotation
    raise KeyError(part)


def _fields(node: Any) -> dict[str, FieldInfo]:
    is_section = isinstance(node, type) and issubclass(node, BaseModel)
    return node.model_fields if is_section else {}


def _kind(node: Any) -> str | None:
    """The kind of samples that a section holds, if it holds samples."""
    is_kind = isinstance(node, type) and issubclass(node, SamplesConfig)
    return node.model_fields["kind"].default if is_kind else None


def _members(node: Any) -> Iterator[Any]:
    """What a value of this type can be: the members of a union."""
    origin = get_origin(node)
    if origin is Annotated:
        yield from _members(get_args(node)[0])
    elif origin in (Union, UnionType):
        for member in get_args(node):
            yield from _members(member)
    else:
        yield node
