"""An empty mapping clears a key; any other mapping is merged key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kdp.config import Config
from kdp.config.compose import load_config

BASE: dict[str, Any] = {
    "output": {"name": "a"},
    "prune": {"min_units": {"head": 2}, "round_to": {"head": 4}, "options": {"sigma": 1.0}},
    "model": {"name": "catanet", "args": {"upscale": 2}},
    "distill": {"losses": {"fakd": {"weight": 10, "options": {"sample": 16}}}},
}
KEYS = [
    "prune.min_units",
    "prune.round_to",
    "prune.options",
    "model.args",
    "distill.losses.fakd.options",
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yml"
    path.write_text(yaml.safe_dump(BASE))
    return path


def at(config: Config, key: str) -> Any:
    value: Any = config.plain()
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("key", KEYS)
def test_an_override_clears_a_mapping(base: Path, key: str) -> None:
    assert at(load_config(base), key)
    assert at(load_config(base, [f"{key}={{}}"]), key) == {}
    assert at(load_config(base, [f"{key}={{ }}", f"{key}.other=2"]), key) == {"other": 2}


@pytest.mark.parametrize("key", KEYS)
def test_a_file_clears_a_mapping_of_its_defaults(base: Path, key: str) -> None:
    content: Any = {}
    for part in reversed(key.split(".")):
        content = {part: content}
    path = base.with_name("run.yml")
    path.write_text(yaml.safe_dump({"defaults": ["base", "_self_"], **content}))
    assert at(load_config(path), key) == {}
    assert at(load_config(path, [f"{key}.other=2"]), key) == {"other": 2}
    path.write_text(yaml.safe_dump({"defaults": ["_self_", "base"], **content}))
    assert at(load_config(path), key) == at(load_config(base), key)


def test_an_empty_mapping_within_another_clears_only_its_own_key(base: Path) -> None:
    prune = load_config(base, ["prune={min_units: {}, options: {rate: 2}}"]).prune
    assert (prune.min_units, prune.round_to) == ({}, {"head": 4})
    assert prune.options == {"sigma": 1.0, "rate": 2}


def test_an_empty_section_has_its_defaults(base: Path) -> None:
    assert load_config(base, ["prune={}"]).prune == type(load_config(base).prune)()


def test_a_reference_to_an_empty_mapping_is_empty(base: Path) -> None:
    overrides = ["prune.min_units={}", "prune.round_to=${prune.min_units}"]
    assert load_config(base, overrides).prune.round_to == {}


@pytest.mark.parametrize("text", ["'{}'", '"{ }"', "a{}b"])
def test_braces_in_text_are_text(base: Path, text: str) -> None:
    name = load_config(base, [f"output.name={text}"]).output.name
    assert name == text.strip("'\"")
