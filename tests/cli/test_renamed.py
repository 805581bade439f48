"""Old names of commands, options and keys work and print the new name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from kdp.cli import app, renamed

NOTE = "is now called"


def _kdp(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(2)}, path)
    return path


@pytest.mark.parametrize(("old", "new"), [*renamed.COMMANDS.items()])
def test_an_old_command_runs_the_new_one(old: str, new: str) -> None:
    done = _kdp(old, "--help")
    assert f"Usage: root {new} " in done.stdout
    assert done.stderr.splitlines() == [
        f"kdp {old} {NOTE} kdp {new}; the old name works until version 0.3"
    ]


def test_an_old_option_sets_the_new_one(weights: Path, tmp_path: Path) -> None:
    written = tmp_path / "weights.json"
    done = _kdp("inspect-weights", weights, "--json", written)
    assert done.exit_code == 0
    assert json.loads(written.read_text())[0]["path"] == str(weights)
    assert f"--json {NOTE} --output" in done.stderr


def test_an_old_option_with_an_equals_sign(weights: Path, tmp_path: Path) -> None:
    written = tmp_path / "weights.json"
    assert _kdp("inspect-weights", weights, f"--json={written}").exit_code == 0
    assert written.is_file()


def test_what_follows_two_dashes_is_no_option() -> None:
    assert renamed.options("export", ["--", "--to"]) == ["--", "--to"]


@pytest.mark.parametrize(
    ("command", "option", "new"),
    [(name, old, new) for name, table in renamed.OPTIONS.items() for old, new in table.items()],
)
def test_every_new_option_exists(command: str, option: str, new: str) -> None:
    help_text = _kdp(command, "--help").stdout
    assert new in help_text
    assert option not in help_text


def test_evaluate_with_an_experiment_reproduces_it(tmp_path: Path) -> None:
    (tmp_path / "face-train-1").mkdir()
    done = _kdp("evaluate", tmp_path / "face-train-1")
    assert "kdp evaluate EXPERIMENT is now called kdp reproduce EXPERIMENT" in done.stderr
    assert "is incomplete" in str(done.exception)


def test_evaluate_with_a_file_is_no_experiment(weights: Path) -> None:
    assert renamed.command(["evaluate", str(weights)]) == ["evaluate", str(weights)]
