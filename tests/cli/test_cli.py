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
from typer.testing import CliRunner

from kdp import __version__
from kdp.cli import app
from tests.conftest import ROOT
from tests.runs import run_kdp

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
    seconds = min(_seconds("-m", "kdp", option) for _ in range(3))
    # Half a second where nothing else runs. A slow or busy processor is as slow for the libraries
    # that print the help, which take about half of that time by themselves.
    libraries = min(_seconds("-c", "import typer.rich_utils") for _ in range(3))
    assert seconds < max(0.5, 3 * libraries)


def _seconds(*arguments: str) -> float:
    """CPU time of a program in Python."""
    before = _seconds_of_children()
    command = [sys.executable, *arguments]
    subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT)
    return _seconds_of_children() - before


def _seconds_of_children() -> float:
    """CPU time, which other programs on the machine do not lengthen."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _loaded(module: str) -> set[str]:
    """The modules that are there once one is imported."""
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return set(done.stdout.split())


HEAVY = {"torch", "numpy", "cv2", "skimage", "accelerate"}


def test_the_command_line_imports_nothing_heavy() -> None:
    loaded = _loaded("kdp.cli")
    assert "typer" in loaded
    assert not loaded & {*HEAVY, "hydra", "pydantic"}


def test_a_configuration_is_read_without_importing_anything_heavy() -> None:
    loaded = _loaded("kdp.stages.chains, kdp.stages.configs, kdp.tasks.sections")
    assert "hydra" in loaded
    assert not loaded & HEAVY


def test_help_lists_every_command() -> None:
    text = _kdp("--help").stdout
    assert not [name for name in INTERFACE if name not in text]


COMPARE = [
    "--config -c",
    "--device",
    "--format",
    "--half",
    "--images",
    "--output -o",
    "--overwrite",
    "--plot",
    "--set",
    "<files>",
]
STAGE = ["--config -c", "--device", "--set", "<overrides>"]
LONG = [*STAGE, "--output -o", "--overwrite", "--rerun", "--resume"]
INTERFACE: dict[str, list[str]] = {
    "kdp": [
        "--debug",
        "--install-completion",
        "--quiet -q",
        "--show-completion",
        "--verbose -v",
        "--version",
    ],
    "train": LONG,
    "cache-targets": [*STAGE, "--output -o", "--overwrite"],
    "prune": [*LONG, "--evaluate --no-evaluate"],
    "recover": [*STAGE, "--evaluate --no-evaluate", "--output -o", "--overwrite"],
    "finetune": [*LONG, "--from"],
    "rebuild": [*STAGE, "--from", "--masks", "--output -o", "--overwrite"],
    "inspect-weights": [
        "--format",
        "--layers --no-layers",
        "--output -o",
        "--overwrite",
        "<files>",
    ],
    "compare": COMPARE,
    "calculate-performance": COMPARE,
    "evaluate": [
        "--config -c",
        "--device",
        "--format",
        "--output -o",
        "--overwrite",
        "--set",
        "<files>",
    ],
    "infer": [
        "--camera",
        "--csi",
        "--device",
        "--format",
        "--headless",
        "--output -o",
        "--overwrite",
        "--set",
        "--whole",
        "--x8",
        "<file>",
        "<inputs>",
    ],
    "export": [
        "--device",
        "--format",
        "--output -o",
        "--overwrite",
        "--precision",
        "--set",
        "--size",
        "<file>",
    ],
    "experiments": [
        "--diff",
        "--folder",
        "--format",
        "--output -o",
        "--overwrite",
        "--reverse",
        "--sort",
    ],
    "reproduce": ["--device", "--folder", "--output -o", "--overwrite", "<experiment>"],
    "sweep": [
        *STAGE,
        "--compare",
        "--format",
        "--jobs",
        "--launcher",
        "--output -o",
        "--stage",
    ],
    "configs": [
        "--format",
        "--output -o",
        "--overwrite",
        "--set",
        "<action>",
        "<name>",
        "<overrides>",
    ],
    "validate": STAGE,
    "paths": ["--config -c", "--set", "<overrides>"],
    "chains": ["--format"],
    "clean": ["--config -c", "--set", "<overrides>"],
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
    interface = {name: _parameters(command) for name, command in commands.items()}
    assert interface == {name: sorted(parameters) for name, parameters in INTERFACE.items()}


def test_commands_have_help_and_an_example_and_options_have_help() -> None:
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert command.help.endswith((".", "?")), name
        assert f"Example: kdp {name}" in command.epilog, name
        for parameter in command.params:
            assert parameter.help.endswith((".", ")")), f"{name} {parameter.name}"


def test_help_lists_commands_in_workflow_order() -> None:
    text = _kdp("--help").stdout
    places = [text.index(f"│ {name} ") for name in INTERFACE if name != "kdp"]
    assert places == sorted(places)


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("kdp: ")
    return line


def test_an_unknown_key_is_one_line_and_exit_code_2(config: Path) -> None:
    line = _one_line(run_kdp("train", "--config", str(config), "sede=3"))
    assert "'sede'; did you mean 'seed'?" in line


def test_a_missing_configuration_is_a_one_line_error(tmp_path: Path) -> None:
    assert "does not exist" in _one_line(run_kdp("train", "--config", str(tmp_path / "gone.yml")))


def test_a_missing_section_is_a_one_line_error(config: Path) -> None:
    assert "`model` and `train`" in _one_line(run_kdp("train", "--config", str(config)))


def test_a_missing_file_is_a_one_line_error(tmp_path: Path) -> None:
    line = _one_line(run_kdp("inspect-weights", str(tmp_path / "gone.pth")))
    assert "gone.pth does not exist" in line


def test_debug_shows_the_traceback(config: Path) -> None:
    for arguments in (["--debug", "train", "sede=3"], ["train", "sede=3", "--debug"]):
        done = run_kdp(*arguments, "--config", str(config))
        assert done.returncode != 0
        assert "Traceback" in done.stderr
        assert "KdpError" in done.stderr


def test_the_shell_completes_commands_and_options() -> None:
    words = {"kdp tr": ("1", "train"), "kdp -q train --resu": ("3", "--resume")}
    for line, (position, expected) in words.items():
        completion = {"_KDP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": position}
        command = [sys.executable, "-m", "kdp"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=ENVIRONMENT | completion
        )
        assert done.stdout.split() == [expected]


@pytest.mark.parametrize("arguments", [["trian"], ["sweep"], ["train", "--conf", "x"]])
def test_wrong_usage_is_a_one_line_error(arguments: list[str]) -> None:
    assert "see kdp" in _one_line(_kdp(*arguments))


def test_no_arguments_show_the_help() -> None:
    done = _kdp()
    assert "Usage" in done.stdout
    assert done.returncode == 0


def test_flags_are_shown_without_a_value() -> None:
    help_text = CliRunner().invoke(app, ["compare", "--help"], env={"COLUMNS": "120"}).stdout
    assert "--overwrite" in help_text
    assert "bool" not in help_text
