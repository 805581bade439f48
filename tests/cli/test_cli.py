"""The command line: what it offers, how fast it answers, and how it fails."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from kdp import __version__
from kdp.cli import app
from tests.conftest import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}


def _kdp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kdp", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yml"
    path.write_text(f"output: {{name: a, dir: {tmp_path}, runs: {tmp_path}}}\n")
    return path


def test_version() -> None:
    done = _kdp("--version")
    assert (done.returncode, done.stdout) == (0, f"kdp {__version__}\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_answer_at_once(option: str) -> None:
    times = []
    for _ in range(3):
        before = _seconds_of_children()
        assert _kdp(option).returncode == 0
        times.append(_seconds_of_children() - before)
    assert min(times) < 0.5


def _seconds_of_children() -> float:
    """CPU time, which other programs on the machine do not lengthen."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, kdp.cli; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    loaded = set(done.stdout.split())
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "cv2", "skimage", "hydra", "pydantic", "accelerate"}


def test_help_lists_every_command() -> None:
    text = _kdp("--help").stdout
    assert not [name for name in INTERFACE if name not in text]


COMPARE = [
    "--config -c",
    "--csv",
    "--device",
    "--half",
    "--images",
    "--json",
    "--md",
    "--plot",
    "--set",
    "<files>",
]
LONG = ["--config -c", "--resume", "<overrides>"]
INTERFACE: dict[str, list[str]] = {
    "calculate-performance": COMPARE,
    "compare": COMPARE,
    "export": ["--output -o", "--precision", "--set", "--size", "--to", "<file>"],
    "finetune": LONG,
    "infer": [
        "--camera",
        "--csi",
        "--device",
        "--headless",
        "--save",
        "--set",
        "--to",
        "--whole",
        "--x8",
        "<file>",
        "<pictures>",
    ],
    "inspect-weights": ["--json", "--layers --no-layers", "<files>"],
    "kdp": ["--debug", "--install-completion", "--show-completion", "--version"],
    "paths": ["--config -c", "<overrides>"],
    "prune": LONG,
    "evaluate": ["--device", "--folder", "--to", "<run>"],
    "rebuild": ["--config -c", "--from", "--masks", "--to", "<overrides>"],
    "runs": ["--diff", "--folder", "--json", "--reverse", "--sort"],
    "sweep": ["--config -c", "--jobs", "--launcher", "--stage", "<overrides>"],
    "train": LONG,
    "teach": ["--config -c", "<overrides>"],
    "validate": ["--config -c", "<overrides>"],
}
"""What users and scripts rely on; a change here belongs in the changelog."""


def _parameters(command: Any) -> list[str]:
    """Options by all their names, and arguments."""
    named = {"option": lambda p: " ".join([*p.opts, *p.secondary_opts])}
    named["argument"] = lambda p: f"<{p.name}>"
    return sorted(named[p.param_type_name](p) for p in command.params)


def test_the_interface_is_frozen() -> None:
    group: Any = typer.main.get_command(app)
    commands = {"kdp": group, **group.commands}
    assert {name: _parameters(command) for name, command in commands.items()} == INTERFACE


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("kdp: ")
    return line


def test_an_unknown_key_is_one_line_and_exit_code_2(config: Path) -> None:
    line = _one_line(_kdp("train", "--config", str(config), "sede=3"))
    assert "'sede'; did you mean 'seed'?" in line


def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    assert "does not exist" in _one_line(_kdp("train", "--config", str(tmp_path / "gone.yml")))


def test_a_missing_section_is_one_line(config: Path) -> None:
    assert "`model` and `train`" in _one_line(_kdp("train", "--config", str(config)))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    line = _one_line(_kdp("inspect-weights", str(tmp_path / "gone.pth")))
    assert "gone.pth does not exist" in line


def test_debug_shows_the_traceback(config: Path) -> None:
    done = _kdp("--debug", "train", "--config", str(config), "sede=3")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "KdpError" in done.stderr


@pytest.mark.parametrize("arguments", [["trian"], ["train"], ["train", "--conf", "x"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = _kdp(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_arguments_show_the_help() -> None:
    done = _kdp()
    assert "Usage" in done.stdout + done.stderr
