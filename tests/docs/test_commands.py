"""Every `kdp` line in the README and in docs/ parses, and its configuration composes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from kdp.cli import app, renamed
from kdp.config.compose import load_config
from tests.conftest import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
DATA = ("KDP_SR", "KDP_FACES", "KDP_ESC10", "KDP_BCCD", "KDP_VOC", "TAU24_PATH")
PLACEHOLDER = re.compile(r"\b(COMMAND|FAMILY|FILE|FOLDER|ID|KEY|NAME|RUN|SET)\b|\.\.\.|\{")
OTHER_PROGRAM = re.compile(r"(\w+=\S+ )*(git|make|pip|python3?)\b|--system-site-packages")
ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=.*")


def commands(page: Path) -> list[str]:
    """The `kdp` lines of code blocks, and commands quoted in running text."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    # `kdp prune` alone is the name of a command, not a line to type; cli.md names options so.
    if page.name != "cli.md":
        lines += [" ".join(s.split()) for s in re.findall(r"`(kdp [a-z-]+\s[^`]+)`", prose)]
    starts = re.compile(r"(?:[A-Z][A-Z0-9_]*=\S+ )*kdp [a-z]")
    return [line for line in lines if starts.match(line) and not PLACEHOLDER.search(line)]


def options(page: Path) -> set[str]:
    """The options of kdp that inline code names; of other programs' lines none."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    spans = [span for span in re.findall(r"`([^`]+)`", prose) if not OTHER_PROGRAM.match(span)]
    return {option for span in spans for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}


LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for line in commands(page)
]


def parsed(line: str) -> dict[str, Any]:
    """The parameters of a command that is parsed and not run."""
    words = shlex.split(line, comments=True)
    arguments = [word for word in words if not ASSIGNMENT.fullmatch(word)][1:]
    group: Any = typer.main.get_command(app)
    command = group.commands[arguments[0]]
    return dict(command.make_context(arguments[0], arguments[1:]).params)


def test_the_pages_have_commands() -> None:
    assert sum(bool(commands(page)) for page in PAGES) >= 6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_documented_option_exists(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    known = {"--help", "--install-completion", "--show-completion"}
    for command in (group, *group.commands.values()):
        known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    if page.name == "cli.md":  # which lists the old names, too
        known |= {old for table in renamed.OPTIONS.values() for old in table}
    assert options(page) <= known


@pytest.mark.parametrize("script", sorted(ROOT.glob("benchmarks/*.sh")), ids=lambda path: path.name)
def test_scripts_use_no_old_names(script: Path) -> None:
    group: Any = typer.main.get_command(app)
    text = script.read_text().replace("\\\n", " ")
    calls = re.findall(r"^\s*kdp ([\w-]+)(.*)", text, re.MULTILINE)
    assert calls
    for name, rest in calls:
        known = {option for param in group.commands[name].params for option in param.opts}
        assert set(re.findall(r"\s(--?[a-z][\w-]*)", rest)) <= known
    assert "distill.targets=" not in text


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_works(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in DATA:
        monkeypatch.setenv(variable, "data")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(renamed, "_warn", lambda old, new: pytest.fail(f"{old} is an old name"))
    given = parsed(line)
    if given.get("config"):
        overrides = [*(given.get("overrides") or ()), *(given.get("values") or ())]
        load_config(given["config"], [o for o in overrides if "," not in o])
