"""The command line: parse, call the stage, print. Nothing heavy is imported before a stage runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kdp import __version__
from kdp.errors import Interrupted, KdpError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML configuration file.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Make trained networks physically smaller and keep them good."""


@app.command()
def train(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a network, a teacher say."""
    from kdp.config import load_config
    from kdp.stages.train import train as run

    for path in run(load_config(config, overrides or ()), resume).values():
        typer.echo(path)


def main() -> None:
    """Run, and turn what the user can mend into one line and an exit code."""
    try:
        app()
    except KdpError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"kdp: {error}", err=True)
        raise SystemExit(2) from error
    except Interrupted as error:
        typer.echo(f"kdp: {error}", err=True)
        raise SystemExit(130) from error
