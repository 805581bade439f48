"""docs/config.md and the schema for editors are current; every field has a description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from kdp.config.json_schema import schema_for_editors, schema_of_config
from kdp.config.reference import JSON_SCHEMA, MARKDOWN, to_json, to_markdown
from kdp.shipped import CONFIGS, SCHEMA
from tests.conftest import ROOT

AGAIN = "run: python -m kdp.config.reference"


def test_the_reference_is_current() -> None:
    assert (ROOT / MARKDOWN).read_text() == to_markdown(), AGAIN


def test_the_schema_for_editors_is_current() -> None:
    assert (ROOT / JSON_SCHEMA).read_text() == to_json(), AGAIN
    assert JSON_SCHEMA.as_posix() == SCHEMA


def _keys(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, section in {"Config": schema, **schema["$defs"]}.items():
        for key, value in section.get("properties", {}).items():
            yield f"{name}.{key}", value


def test_every_field_has_a_description() -> None:
    schema = schema_of_config()
    # pydantic leaves out the sentence of a key that is the same as its section's.
    dumb = [
        name
        for name, value in _keys(schema)
        if not value.get("description")
        and not schema["$defs"].get(value.get("$ref", "").rsplit("/")[-1], {}).get("description")
    ]
    assert dumb == []


def test_every_section_has_a_description() -> None:
    assert [n for n, d in schema_of_config()["$defs"].items() if not d.get("description")] == []


def test_every_key_is_in_the_reference() -> None:
    text = to_markdown()
    keys = {name.split(".")[1] for name, _ in _keys(schema_of_config())} - {"kind"}
    assert [key for key in sorted(keys) if f"| `{key}` |" not in text] == []


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_files_point_to_the_schema(name: str) -> None:
    path = ROOT / "configs" / name
    match = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
    assert match
    assert (path.parent / match[1]).samefile(ROOT / SCHEMA)


def test_a_part_of_a_configuration_fits_the_schema_for_editors() -> None:
    text = json.dumps(schema_for_editors())
    assert '"required"' not in text
    assert '"oneOf"' not in text
    assert "defaults" in schema_for_editors()["properties"]
