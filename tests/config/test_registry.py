"""What families add to the configuration: sections, kinds of data, keys of `data`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kdp.config import (
    Config,
    SamplesConfig,
    Section,
    register_calibration_options,
    register_data_kind,
    register_data_options,
    register_section,
    registry,
)
from kdp.config.compose import load_config
from kdp.errors import KdpError


class Songs(Section):
    """Songs."""

    pitch: float = 500.0
    """Lowest pitch, in Hz."""


class Nests(Section):
    """A section that must be given."""

    folder: Path
    """Folder of the nests."""


class BirdFolders(SamplesConfig):
    """Sounds in a folder for each species."""

    birds: Path
    """Folder of the species."""


class Wind(Section):
    """How training sounds are changed."""

    wind: float = 0.5
    """Loudness of added wind."""


class Dawn(Section):
    """Which sounds importance is measured on."""

    hour: int = 5
    """Hour of the day."""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The families of this file, until the end of the test."""
    registry.load_table()
    monkeypatch.setattr(registry, "_sections", dict(registry.sections()))
    monkeypatch.setattr(registry, "_kinds", dict(registry.data_kinds()))
    monkeypatch.setattr(registry, "_data_options", list(registry.data_options()))
    monkeypatch.setattr(registry, "_calibration_options", list(registry.calibration_options()))
    register_section("songs", Songs)
    register_section("nests", Nests)
    register_data_kind("birds", BirdFolders)
    register_data_options(Wind)
    register_calibration_options(Dawn)
    yield
    # What was registered is taken back by monkeypatch; the schema must follow.
    monkeypatch.undo()
    registry._version += 1


def _config(**changes: object) -> Config:
    return Config.model_validate({"output": {"name": "a"}, **changes})


def test_a_section_is_read_by_its_class() -> None:
    assert _config(songs={"pitch": 3}).section(Songs).pitch == 3


def test_a_section_missing_from_the_file_has_its_defaults() -> None:
    assert _config().section(Songs).pitch == 500
    assert _config().plain()["songs"] == {"pitch": 500}


def test_a_section_with_required_keys_must_be_given() -> None:
    config = _config()
    with pytest.raises(KdpError, match="required section 'nests'"):
        config.section(Nests)
    assert _config(nests={"folder": "n"}).section(Nests).folder == Path("n")


def test_each_data_kind_has_its_own_keys() -> None:
    config = _config(data={"kind": "birds", "birds": "x"})
    assert isinstance(config.data, BirdFolders)
    assert config.data.birds == Path("x")
    assert Config.model_validate(config.plain()) == config


def test_options_are_keys_of_data_of_any_kind() -> None:
    assert _config(data={"wind": 0.1}).data.options(Wind).wind == 0.1
    assert _config().data.options(Wind).wind == 0.5


def test_calibration_options_are_keys_of_that_section() -> None:
    config = _config(prune={"calibration": {"hour": 6}})
    assert config.prune.calibration.options(Dawn).hour == 6
    assert _config().prune.calibration.options(Dawn).hour == 5
    assert Config.model_validate(config.plain()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prune: {calibration: {hr: 1}}",
            "unknown key 'prune.calibration.hr'; did you mean 'hour'",
        ),
        ("songs: {pich: 3}", "unknown key 'songs.pich'; did you mean 'pitch'?"),
        ("sngs: {pitch: 3}", "unknown key 'sngs'; did you mean 'songs'?"),
        ("data: {kind: birs}", "data.kind: no kind 'birs'; did you mean 'birds'?"),
        ("data: {kind: birds, birds: x, wnd: 1}", "unknown key 'data.wnd'; did you mean 'wind'?"),
        ("evaluation: {x: {kind: birds}}", "the required key 'evaluation.x.birds' is missing"),
    ],
)
def test_errors_list_what_is_registered(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yml"
    path.write_text(f"output: {{name: a}}\n{text}\n")
    with pytest.raises(KdpError) as caught:
        load_config(path)
    assert message in str(caught.value)


def test_a_key_has_one_owner() -> None:
    class Other(Section):
        wind: float = 0.0

    register_section("songs", Songs)
    with pytest.raises(ValueError, match="songs"):
        register_section("songs", Other)
    with pytest.raises(ValueError, match="wind"):
        register_data_options(Other)
