"""The command line: parse, call one stage, print. Nothing heavy is imported before a stage runs."""

from __future__ import annotations

import sys

import typer

from kdp.cli import compare, experiments, prune, setup, train, use
from kdp.cli.app import app
from kdp.errors import Interrupted, KdpError

__all__ = ["app", "compare", "experiments", "main", "prune", "setup", "train", "use"]


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
