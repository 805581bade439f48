"""Old names of commands and options, accepted for one more version.

Each use of an old name logs a warning that gives the new one. To remove an old name, delete its
line from the table here. Configuration keys: see `kdp.config.base.Section.renamed_keys`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdp.log import log

COMMANDS = {"teach": "cache-targets", "runs": "experiments"}
"""New name of a command by its old one."""

OPTIONS = {
    "compare": {"--csv": "--output", "--json": "--output", "--md": "--output"},
    "calculate-performance": {"--csv": "--output", "--json": "--output", "--md": "--output"},
    "experiments": {"--json": "--output"},
    "export": {"--to": "--format"},
    "infer": {"--to": "--output", "--save": "--output"},
    "inspect-weights": {"--json": "--output"},
    "rebuild": {"--to": "--output"},
    "reproduce": {"--to": "--output"},
}
"""New name of an option by command and old name."""


def command(args: Sequence[str]) -> list[str]:
    """Arguments of kdp with the new name of an old command.

    Args:
        args: what follows `kdp` and its global options.
    """
    if not args:
        return []
    name, *rest = args
    if name == "evaluate" and _evaluates_experiment(rest):
        _warn("kdp evaluate EXPERIMENT", "kdp reproduce EXPERIMENT")
        return ["reproduce", *rest]
    if name in COMMANDS:
        _warn(f"kdp {name}", f"kdp {COMMANDS[name]}")
    return [COMMANDS.get(name, name), *rest]


def options(name: str, args: Sequence[str]) -> list[str]:
    """Arguments of a command with the new names of old options."""
    table, end = OPTIONS.get(name, {}), args.index("--") if "--" in args else len(args)
    return [*(_option(arg, table) for arg in args[:end]), *args[end:]]


def _option(arg: str, table: dict[str, str]) -> str:
    option, equals, value = arg.partition("=")
    if option not in table:
        return arg
    _warn(option, table[option])
    return f"{table[option]}{equals}{value}"


def _evaluates_experiment(args: Sequence[str]) -> bool:
    """Whether `kdp evaluate` is given an experiment, as in version 0.1, and no file."""
    first = next((arg for arg in args if not arg.startswith("-")), None)
    if "--folder" in args or first is None:
        return first is not None
    return Path(first).is_dir() or not (Path(first).suffix or Path(first).exists())


def _warn(old: str, new: str) -> None:
    log.warning(f"{old} is now called {new}; the old name works until version 0.3")
