"""Validation of a network's arguments: by its annotations, and what several networks share."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Size = Annotated[int, Field(strict=True, ge=1)]
"""Annotation of an argument: a whole number from 1 on."""
Count = Annotated[int, Field(strict=True, ge=0)]
"""The same from 0 on."""
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
"""The same: a number between 0 and 1."""
Switch = Annotated[bool, Field(strict=True)]
"""The same: true or false."""
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


def check_arguments(network: Callable[..., Any], args: Mapping[str, Any]) -> None:
    """Compare arguments with the annotations of a network's parameters.

    torch accepts a wrong type or a negative width in many places, and fails somewhere else or in
    the first step.

    Args:
        network: a class or a function.
        args: by name; names that it does not have are left to the call.

    Raises:
        ValueError: a value does not fit; the message names the argument.
    """
    adapters = _adapters(network)
    for name, value in args.items():
        adapter = adapters.get(name, adapters.get("**"))
        try:
            if adapter:
                adapter.validate_python(value)
        except ValidationError as error:
            # Where several types are possible, pydantic has an error for each.
            reasons = dict.fromkeys(str(each["msg"]) for each in error.errors())
            given = reprlib.repr(value)
            raise ValueError(f"{name}={given}: {' or '.join(reasons)}") from error


@cache
def _adapters(network: Callable[..., Any]) -> dict[str, TypeAdapter[Any]]:
    """What checks each parameter; that of `**` checks all others."""
    function: Any = getattr(network, "__init__", 0) if isinstance(network, type) else network
    hints = get_type_hints(function, include_extras=True)
    config = ConfigDict(arbitrary_types_allowed=True)
    return {
        "**" if parameter.kind is parameter.VAR_KEYWORD else name: TypeAdapter(
            hints.get(name, Any), config=config
        )
        for name, parameter in inspect.signature(network).parameters.items()
    }
