"""`kdp export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import Device, NetworkFile, OverwriteFiles, SetValues, merged
from kdp.log import log


@command("export", "kdp export small.pth --format onnx -o small.onnx")
def export(
    file: NetworkFile,
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx, torchscript, or a format of the family (ultralytics).",
        ),
    ] = "onnx",
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(
            help="ONNX: full precision, half precision, or 8-bit weights by dynamic quantisation."
        ),
    ] = "fp32",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="HEIGHT WIDTH",
            help="Input size, for networks that are exported for a single size.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write. Default: beside the network."
        ),
    ] = None,
    overwrite: OverwriteFiles = False,
    device: Device = None,
    values: SetValues = None,
) -> None:
    """Write a network for other runtimes after checking its outputs against PyTorch's."""
    from kdp.stages.defaults import config_or_defaults
    from kdp.stages.export.export import ExportRequest
    from kdp.stages.export.export import export as run

    chosen = config_or_defaults(None, merged(None, values, device))
    done = run(file, ExportRequest(file_format, precision, size, output, overwrite), chosen)
    shape = "x".join(str(side) for side in done.input_shape)
    axes = f"; any {', '.join(done.dynamic_axes)}" if done.dynamic_axes else " only"
    log.info(f"input {shape}{axes}; largest difference from PyTorch {done.difference:.1e}")
    echo(done.path)
