"""Look and compare: `inspect-weights`, `compare` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    Device,
    EvaluationConfig,
    JsonFile,
    NetworkFiles,
    OverwriteFiles,
    SetValues,
    TableFiles,
    TableFormat,
    TableFormatOption,
    TextFormatOption,
    merged,
    table_format,
)

if TYPE_CHECKING:
    from kdp.stages.compare.compare import Evaluation


@command("inspect-weights", "kdp inspect-weights weights/catanet_x2_pruned.pth --layers")
def inspect_weights(
    files: NetworkFiles,
    layers: Annotated[
        bool | None,
        typer.Option("--layers/--no-layers", help="Show every layer. Default: of a single file."),
    ] = None,
    output: JsonFile = None,
    text_format: TextFormatOption = "table",
    overwrite: OverwriteFiles = False,
) -> None:
    """Show the sparsity of files and layers, what masks keep, and where a file came from."""
    from kdp.stages.inspect_weights import inspect, show, to_json
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets
    from kdp.written import write_output

    check_targets([output] if output else [], overwrite, OTHER_OUTPUT)
    inspections = [inspect(path) for path in files]
    if text_format == "json":
        echo(to_json(inspections), nl=False)
    else:
        show(inspections, layers)
    if output:
        write_output(output, to_json(inspections).encode())


@command("compare", "kdp compare teacher.pth small.pth -c config_catanet.yml -o table.md")
def compare(
    files: NetworkFiles,
    config: EvaluationConfig = None,
    values: SetValues = None,
    device: Device = None,
    output: TableFiles = None,
    printed: TableFormatOption = "table",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for images that show the networks side by side."
        ),
    ] = None,
    plot_file: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw quality against MACs into a PNG file."),
    ] = None,
    half: Annotated[
        bool,
        typer.Option("--half", help="Measure every network in half precision, too."),
    ] = False,
    overwrite: OverwriteFiles = False,
) -> None:
    """Compare quality, parameters, MACs, size and latency of networks in one table."""
    formats = {path: table_format(path) for path in output or ()}
    from kdp.stages.compare.compare import compare as run
    from kdp.stages.compare.compare import settings
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets

    # The names of side-by-side images are those of samples, so any image of the folder counts.
    drawn = [*([plot_file] if plot_file else []), *(images.glob("*.png") if images else [])]
    check_targets([*formats, *drawn], overwrite, OTHER_OUTPUT)
    chosen = settings(config, merged(None, values), device)
    comparison = run(files, chosen, images, half)
    _print_and_write(comparison, printed, formats)
    if plot_file:
        from kdp.stages.compare.plots import to_png
        from kdp.written import write_output

        write_output(plot_file, to_png(comparison, chosen))


command(
    "calculate-performance",
    "kdp calculate-performance teacher.pth small.pth",
    description="The same as compare.",
)(compare)


@command("evaluate", "kdp evaluate small.pth -c config_catanet.yml")
def evaluate(
    files: NetworkFiles,
    config: EvaluationConfig = None,
    values: SetValues = None,
    device: Device = None,
    output: TableFiles = None,
    printed: TableFormatOption = "table",
    overwrite: OverwriteFiles = False,
) -> None:
    """Measure the quality of networks alone: no MACs, no latency."""
    formats = {path: table_format(path) for path in output or ()}
    from kdp.stages.compare.compare import evaluate as run
    from kdp.stages.compare.compare import settings
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets

    check_targets(list(formats), overwrite, OTHER_OUTPUT)
    _print_and_write(run(files, settings(config, merged(None, values), device)), printed, formats)


def _print_and_write(
    evaluation: Evaluation, printed: TableFormat, formats: Mapping[Path, str]
) -> None:
    """Print the table, and write it into files in the format of each."""
    from kdp.stages.compare import tables
    from kdp.written import write_output

    if printed == "table":
        tables.show(evaluation)
    else:
        echo(tables.WRITERS[printed](evaluation), nl=False)
    for path, kind in formats.items():
        write_output(path, tables.WRITERS[kind](evaluation).encode())
