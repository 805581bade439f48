"""`kdp configs`: listing, showing and copying configurations."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kdp.cli import app
from kdp.config.compose import load_config
from kdp.errors import KdpError
from kdp.shipped import CONFIGS
from kdp.stages.configs import copy_config, list_configs, show_config, to_text
from kdp.stages.paths import chain_paths
from tests.conftest import ROOT
from tests.shipped import NAMES, shipped


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(path: str, text: str = "# Mine.\noutput: {name: mine}\n") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_every_shipped_file_is_listed_with_a_description() -> None:
    listed = list_configs()
    assert {entry.path for entry in listed} == {ROOT / "configs" / name for name in CONFIGS}
    assert all(20 < len(entry.description) <= 98 for entry in listed if "=" not in entry.name)
    assert "faces=real" in {entry.name for entry in listed}


def test_user_files_come_first_and_shadow_shipped_ones() -> None:
    _write("configs/config_catanet.yml")
    first, *others = list_configs()
    assert (first.name, first.description) == ("config_catanet.yml", "Mine.")
    assert "config_catanet.yml" not in {entry.name for entry in others}
    assert to_text(list_configs()).startswith("configurations (configs)\n")


@pytest.mark.parametrize("name", NAMES)
def test_no_file_of_a_chain_says_a_stage_twice(name: str) -> None:
    for path in asdict(chain_paths(shipped(name))).values():
        words = [word for word in path.stem.split("_") if word.endswith("ed")]
        assert len(words) == len(set(words)), path


@pytest.mark.parametrize("name", ["face_mask_prune.yml", "prune_schedule.yml", "yolo11_prune.yml"])
def test_the_shown_text_is_the_same_configuration(name: str) -> None:
    shown = _write("shown.yml", show_config(Path(name), ["seed=3"]))
    assert load_config(shown) == load_config(Path(name), ["seed=3"])


def test_every_key_is_shown_with_its_description() -> None:
    text = show_config(Path("config_catanet.yml"))
    assert "  patience: null  # Early stopping: " in text
    assert max(map(len, text.splitlines())) <= 100


def test_unusual_text_is_shown_unchanged() -> None:
    odd = "a: b # c [d] 'e' \" {f}, yes"
    shown = _write("shown.yml", show_config(_write("run.yml"), [f"output.dir={odd}"]))
    assert load_config(shown).output.dir == Path(odd)


def test_a_copy_is_the_same_configuration() -> None:
    original = load_config(Path("rep_mobile.yml"))
    assert copy_config(Path("rep_mobile")) == Path("rep_mobile.yml")
    assert load_config(Path("rep_mobile.yml")) == original
    assert "$schema" not in Path("rep_mobile.yml").read_text()


def test_a_copy_replaces_nothing() -> None:
    mine = _write("mine.yml")
    with pytest.raises(KdpError, match=r"mine\.yml exists.*--overwrite"):
        copy_config(Path("rep_mobile.yml"), mine)
    assert mine.read_text().startswith("# Mine.")
    copy_config(Path("rep_mobile.yml"), mine, overwrite=True)
    assert load_config(mine).output.name == "rep_mobile"


def test_the_command_lists_shows_and_copies() -> None:
    run = CliRunner().invoke
    assert "scenes/rep_mobile.yml" in run(app, ["configs"]).stdout
    names = [
        entry["name"] for entry in json.loads(run(app, ["configs", "--format", "json"]).stdout)
    ]
    assert "scenes/rep_mobile.yml" in names
    shown = run(app, ["configs", "show", "rep_mobile.yml", "seed=3", "--set", "device=cpu"])
    assert shown.stdout.startswith("seed: 3")
    assert "\ndevice: cpu" in shown.stdout
    assert run(app, ["configs", "copy", "rep_mobile.yml", "-o", "a.yml"]).stdout == "a.yml\n"
    assert Path("a.yml").is_file()


@pytest.mark.parametrize(
    "arguments", [["show"], ["copy"], ["list", "x"], ["copy", "rep_mobile.yml", "seed=1"]]
)
def test_conflicting_arguments_are_rejected(arguments: list[str]) -> None:
    assert isinstance(CliRunner().invoke(app, ["configs", *arguments]).exception, KdpError)
