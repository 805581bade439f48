"""The JSON schema by which an editor completes and checks configuration files."""

from __future__ import annotations

from typing import Any

from kdp.config.schema import full_schema

_DEFAULTS = {
    "description": "Files this one is composed of: names, overlays (GROUP: NAME), and _self_.",
    "type": "array",
    "items": {"type": ["string", "object"]},
}


def schema_of_config() -> dict[str, Any]:
    """The schema of a whole configuration, in plain JSON; sentences are on one line."""
    return _cleaned(full_schema().model_json_schema())


def schema_for_editors() -> dict[str, Any]:
    """The schema of one file, which may be a part of a configuration.

    Keys that the whole must have may be missing, and samples may be of any kind where another file
    gives their `kind`.
    """
    schema = _partial(schema_of_config())
    schema["properties"] = {"defaults": _DEFAULTS, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kdp", **schema}


def _cleaned(node: Any) -> Any:
    """Without the titles that pydantic makes of names, and the line breaks of docstrings."""
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if not isinstance(node, dict):
        return node
    cleaned = {key: _cleaned(value) for key, value in node.items()}
    if isinstance(cleaned.get("title"), str):
        del cleaned["title"]
    if isinstance(cleaned.get("description"), str):
        cleaned["description"] = " ".join(cleaned["description"].split())
    return cleaned


def _partial(node: Any) -> Any:
    if isinstance(node, list):
        return [_partial(item) for item in node]
    if not isinstance(node, dict):
        return node
    names = {"oneOf": "anyOf"}
    dropped = ("required", "discriminator")
    return {names.get(k, k): _partial(value) for k, value in node.items() if k not in dropped}
