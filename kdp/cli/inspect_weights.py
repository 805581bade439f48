"""`kdp inspect-weights`."""

from __future__ import annotations

from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import JsonFile, NetworkFiles, OverwriteFiles, TextFormatOption


@command("inspect-weights", "kdp inspect-weights weights/catanet_x2_pruned.pth --layers")
def inspect_weights(
    files: NetworkFiles,
    layers: Annotated[
        bool | None,
        typer.Option(
            "--layers/--no-layers", help="Show every layer. Default: only for a single file."
        ),
    ] = None,
    output: JsonFile = None,
    text_format: TextFormatOption = "table",
    overwrite: OverwriteFiles = False,
) -> None:
    """Show the sparsity of files and layers, the units that masks keep, and provenance."""
    from kdp.stages.inspect_weights import inspect, show, to_json
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets
    from kdp.written import write_output

    check_targets([output] if output else [], overwrite, OTHER_OUTPUT)
    inspections = [inspect(path) for path in files]
    if output:
        write_output(output, to_json(inspections).encode())
    if text_format == "json":
        echo(to_json(inspections), nl=False)
    else:
        show(inspections, layers)
