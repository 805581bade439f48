"""Check the options of a function that a configuration names against its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from kdp.errors import KdpError


def checked_options(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    key: str,
    given: Collection[str] = (),
) -> dict[str, Any]:
    """The options of a function, checked and completed with its defaults.

    Args:
        function: its parameters with a default are the options; values must fit the annotations.
        options: from a configuration.
        key: of the options in the configuration, for messages.
        given: parameters with a default that are no options.

    Raises:
        KdpError: the function has no such option, or the value does not fit.
    """
    schema = _schema(function, given)
    try:
        return schema.model_validate(dict(options)).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        known = ", ".join(schema.model_fields) or "none"
        raise KdpError(f"{key}.{option}: {first['msg']} (options: {known})") from error


def _schema(function: Callable[..., Any], given: Collection[str]) -> type[BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty and name not in given
    }
    return create_model("Options", __config__=ConfigDict(extra="forbid"), **fields)
