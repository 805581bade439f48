"""`kdp compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.options import (
    Device,
    EvaluationConfig,
    NetworkFiles,
    OverwriteFiles,
    SetValues,
    TableFiles,
    TableFormatOption,
    merged,
)
from kdp.cli.table_output import write_and_print
from kdp.serialize import table_format


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
        typer.Option("--plot", metavar="FILE", help="Plot quality against MACs to a PNG file."),
    ] = None,
    half: Annotated[
        bool,
        typer.Option("--half", help="Also measure every network in half precision."),
    ] = False,
    overwrite: OverwriteFiles = False,
) -> None:
    """Compare quality, parameters, MACs, size and latency of networks in one table."""
    formats = {path: table_format(path) for path in output or ()}
    from kdp.stages.compare.compare import compare as run
    from kdp.stages.defaults import config_or_defaults
    from kdp.stages.replacing import OTHER_OUTPUT, check_targets

    # The names of side-by-side images are those of samples, so any image of the folder counts.
    drawn = [*([plot_file] if plot_file else []), *(images.glob("*.png") if images else [])]
    check_targets([*formats, *drawn], overwrite, OTHER_OUTPUT)
    chosen = config_or_defaults(config, merged(None, values, device))
    comparison = run(files, chosen, images, half)
    if plot_file:
        from kdp.stages.compare.plot import to_png
        from kdp.written import write_output

        write_output(plot_file, to_png(comparison, chosen))
    write_and_print(comparison, printed, formats)


command(
    "calculate-performance",
    "kdp calculate-performance teacher.pth small.pth",
    description="The same as compare.",
)(compare)
