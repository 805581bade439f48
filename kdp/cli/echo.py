"""Results on standard output."""

from __future__ import annotations

import os
import sys

import typer

from kdp.text import printable


def echo(content: object, nl: bool = True, err: bool = False) -> None:
    """Print a path or a text: unchanged for a program, without what a terminal would obey."""
    text = str(content)
    if (sys.stderr if err else sys.stdout).isatty():
        typer.echo(printable(text), nl=nl, err=err)
    else:
        # A name of bytes that are no text would be an error if it were encoded as text.
        typer.echo(text if text.isprintable() else os.fsencode(text), nl=nl, err=err)
