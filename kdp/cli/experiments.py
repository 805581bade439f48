"""`kdp experiments`."""

from __future__ import annotations

from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    EXPERIMENTS,
    ExperimentsFolder,
    JsonFile,
    OverwriteFiles,
    TextFormatOption,
)


@command("experiments", "kdp experiments --sort value --reverse")
def experiments(
    folder: ExperimentsFolder = EXPERIMENTS,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of results.csv to sort by.")
    ] = "timestamp",
    reverse: Annotated[bool, typer.Option("--reverse", help="Sort in descending order.")] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ID ID", help="Show the differences between two experiments instead."),
    ] = None,
    output: JsonFile = None,
    text_format: TextFormatOption = "table",
    overwrite: OverwriteFiles = False,
) -> None:
    """List the recorded experiments, or show the differences between two of them.

    An `experiments` section in a configuration records every result.
    """
    from dataclasses import asdict

    from kdp.serialize import json_text
    from kdp.stages.experiments import list as stage
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets
    from kdp.written import write_output

    check_targets([output] if output else [], overwrite, OTHER_OUTPUT)
    shown = (
        stage.difference(folder, *diff) if diff else stage.list_experiments(folder, sort, reverse)
    )
    text = json_text(asdict(shown))
    if output:
        write_output(output, text.encode())
    if text_format == "json":
        echo(text, nl=False)
    else:
        stage.show(shown)
