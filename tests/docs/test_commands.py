"""Every `kdp` line in the README and in docs/ parses, and its configuration composes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer

import kdp.tasks  # the families register their sections of a configuration
from kdp.cli import app
from kdp.config.compose import load_config
from tests.conftest import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
DATA = ("KDP_SR", "KDP_FACES", "KDP_ESC10", "KDP_BCCD", "KDP_VOC", "TAU24_PATH")
PLACEHOLDER = re.compile(r"\b(COMMAND|FAMILY|FILE|FOLDER|ID|KEY|NAME|RUN|SET)\b|\.\.\.|\{")
ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*")


def commands(page: Path) -> list[str]:
    """The `kdp` lines of code blocks, and commands quoted in running text."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(span.split()) for span in re.findall(r"`(kdp [^`]+)`", prose)]
    starts = re.compile(r"(?:[A-Z][A-Z0-9_]*=\S+ )*kdp [a-z]")
    return [line for line in lines if starts.match(line) and not PLACEHOLDER.search(line)]


LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for line in commands(page)
]


def parsed(line: str) -> click.Context:
    """The command with its arguments, not run."""
    words = shlex.split(line, comments=True)
    arguments = [word for word in words if not ASSIGNMENT.fullmatch(word)][1:]
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group)
    root = group.make_context("kdp", list(arguments))
    name, command, rest = group.resolve_command(root, [*root.protected_args, *root.args])
    assert command is not None
    return command.make_context(name, rest, parent=root)


def test_the_pages_have_commands() -> None:
    assert sum(bool(commands(page)) for page in PAGES) >= 6


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_works(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in DATA:
        monkeypatch.setenv(variable, "data")
    monkeypatch.chdir(ROOT)
    context = parsed(line)
    if context.params.get("config"):
        overrides = [*(context.params.get("overrides") or ()), *(context.params.get("values") or ())]
        load_config(context.params["config"], [o for o in overrides if "," not in o])
