"""The typer application: its panels, its global options, and how a command is added to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from kdp import __version__
from kdp.cli import renamed
from kdp.log import set_up_logging
from kdp.training.shutdown import stop_at_once

PANELS = {
    "Train and distil": ("train", "cache-targets"),
    "Prune": ("prune", "recover", "finetune", "rebuild"),
    "Inspect and compare": ("inspect-weights", "compare", "calculate-performance", "evaluate"),
    "Use": ("infer", "export"),
    "Experiments": ("experiments", "reproduce", "sweep"),
    "Set up": ("configs", "validate", "paths", "chains", "clean"),
}
"""The commands in the order of work; `kdp --help` lists them like this."""

_GLOBAL_FLAGS = ("--debug", "--quiet", "-q", "--verbose", "-v", "--version")
Function = TypeVar("Function", bound=Callable[..., Any])


class _PlainFlags:
    """Parameters of a command; its help shows no value behind a flag, which takes none."""

    def get_params(self, ctx: Any) -> list[Any]:
        """See `TyperCommand`."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Group(_PlainFlags, TyperGroup):
    """The commands, ordered as in `PANELS`; global flags may stand anywhere on the command line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands that exist, in the order of work."""
        order = [name for names in PANELS.values() for name in names]
        return sorted(super().list_commands(ctx), key=order.index)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Move global flags to the front, where the parser expects them; accept old commands.

        Without any argument the help is what was asked for.
        """
        set_up_logging()
        args = args or ["--help"]
        end = args.index("--") if "--" in args else len(args)
        flags = [arg for arg in args[:end] if arg in _GLOBAL_FLAGS]
        rest = [arg for arg in args[:end] if arg not in _GLOBAL_FLAGS] + args[end:]
        return super().parse_args(ctx, flags + renamed.command(rest))

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            Interrupted: on Ctrl-C, SIGTERM or SIGHUP, where the command does not handle it itself.
        """
        with stop_at_once("interrupted"):
            return super().invoke(ctx)


class Command(_PlainFlags, TyperCommand):
    """A command that accepts the old names of its options, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace old options, then parse."""
        return super().parse_args(ctx, renamed.options(self.name or "", args))


app = typer.Typer(cls=Group, pretty_exceptions_enable=False)


def command(name: str, *examples: str, description: str = "") -> Callable[[Function], Function]:
    """Register a function as a command.

    Args:
        name: as in `PANELS`.
        examples: whole command lines; its help ends with them.
        description: its help (default: the function's docstring).
    """
    panel = next(panel for panel, names in PANELS.items() if name in names)
    epilog = "\n\n".join(f"Example: {example}" for example in examples)

    def register(function: Function) -> Function:
        text = description or _unwrapped(function.__doc__ or "")
        options: dict[str, Any] = {"help": text, "epilog": epilog, "rich_help_panel": panel}
        return app.command(name, cls=Command, **options)(function)

    return register


def _unwrapped(docstring: str) -> str:
    """Paragraphs with a line each; typer keeps the line breaks of all but the first."""
    return "\n\n".join(" ".join(part.split()) for part in docstring.split("\n\n"))


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"kdp {__version__}")
        raise typer.Exit


@app.callback(epilog="-q, -v and --debug may appear anywhere: kdp prune -c FILE -v")
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print warnings, errors and results only.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print debug messages.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; implies --verbose.")
    ] = False,
) -> None:
    """Compress trained networks by structured pruning and knowledge distillation."""
    level = logging.DEBUG if verbose or debug else logging.WARNING if quiet else logging.INFO
    # Of several processes of one training the first one speaks, as torchrun numbers them.
    is_main = os.environ.get("RANK", "0") == "0"
    set_up_logging(level if is_main else max(level, logging.WARNING))
