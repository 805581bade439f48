"""The typer application, its panels, and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp import __version__
from kdp.log import set_up_logging

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

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
    """Compress trained networks by structured pruning and knowledge distillation."""
    set_up_logging()


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Artifacts, checkpoints.")]
