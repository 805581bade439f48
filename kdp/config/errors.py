"""The message for mistakes in a configuration: one line."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kdp.config import registry
from kdp.config.data import SamplesConfig
from kdp.config.schema import full_schema
from kdp.errors import suggest

Location = tuple[int | str, ...]


def explain(error: ValidationError, groups: Collection[str] = ()) -> str:
    """The first error in one line, with the nearest valid key or kind.

    Args:
        error: of the schema.
        groups: of overlays; an override GROUP=NAME may mean one of them.
    """
    # A mistyped key is why another is missing, so it comes first.
    first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    keys, section = _place(first["loc"])
    where = ".".join(str(key) for key in keys)
    # Where several types are possible, pydantic has an error for each.
    further = len({_place(other["loc"])[0] for other in others} - {keys})
    more = f" (and {further} more)" if further else ""
    if first["type"] == "missing":
        return f"the required key {where!r} is missing{more}"
    if first["type"] == "extra_forbidden":
        kinds = [k for k, samples in registry.data_kinds().items() if keys[-1] in _fields(samples)]
        if kinds and keys[0] in ("data", "evaluation"):
            return f"the key {where!r} needs a kind: {' or '.join(kinds)}{more}"
        known = _known_keys(section) + ([] if keys[1:] else sorted(groups))
        return f"unknown key {where!r}; {suggest(str(keys[-1]), known)}{more}"
    if first["type"] == "union_tag_invalid":
        kind = str(first["input"]["kind"])
        return f"{where}.kind: no kind {kind!r}; {suggest(kind, registry.data_kinds())}{more}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("model_type", "dict_type"):
        message = "it must be a mapping of keys to values"
    if isinstance(first["input"], dict):  # a section whose keys do not go together
        return f"{where}: {message}{more}" if where else message + more
    return f"{where}: {message}, got {reprlib.repr(first['input'])}{more}"


def _place(location: Location) -> tuple[Location, Any]:
    """The keys of an error's location, and the section that holds the last key.

    pydantic inserts the name of the union's member after a key with several types: the kind of
    samples, or a type such as `path`. These names are no keys of the file.
    """
    node: Any = full_schema()
    section, named = node, False
    keys: list[int | str] = []
    for part in location:
        members = [member for member in _members(node) if member is not NoneType]
        if len(members) > 1 and not named:
            named = True
            node = next((member for member in members if _kind(member) == part), node)
            continue
        keys.append(part)
        named, section = False, node
        try:
            node = _inside(node, part)
        except KeyError:
            break
    return tuple(keys), section


def _known_keys(node: Any) -> list[str]:
    return sorted({key for section in _members(node) for key in _fields(section)})


def types_at(location: Location) -> set[Any]:
    """The types that the value of a key may have, without null; empty if there is no such key."""
    node: Any = full_schema()
    try:
        for part in location:
            node = _inside(node, part)
    except KeyError:
        return set()
    return set(_members(node)) - {type(None)}


def _inside(node: Any, part: int | str) -> Any:
    """The type of the value at a key or list index.

    Raises:
        KeyError: there is no such key.
    """
    for member in _members(node):
        if get_origin(member) in (dict, list, tuple):
            return get_args(member)[-1]
        if part in _fields(member):
            return _fields(member)[str(part)].annotation
    raise KeyError(part)


def _fields(node: Any) -> dict[str, FieldInfo]:
    is_section = isinstance(node, type) and issubclass(node, BaseModel)
    return node.model_fields if is_section else {}


def _kind(node: Any) -> str | None:
    """The kind of samples that a section describes, if any."""
    is_kind = isinstance(node, type) and issubclass(node, SamplesConfig)
    return node.model_fields["kind"].default if is_kind else None


def _members(node: Any) -> Iterator[Any]:
    """The members of a union; any other type itself."""
    origin = get_origin(node)
    if origin is Annotated:
        yield from _members(get_args(node)[0])
    elif origin in (Union, UnionType):
        for member in get_args(node):
            yield from _members(member)
    else:
        yield node
