"""Look and compare: `inspect-weights` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp.cli.app import Files, app


@app.command()
def inspect_weights(
    files: Files,
    layers: Annotated[
        bool | None,
        typer.Option("--layers/--no-layers", help="Show every layer (default: of a single file)."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it all as JSON.")] = None,
) -> None:
    """Zeros per file and per layer, what masks keep, and where a file came from."""
    from kdp.files import write_atomic
    from kdp.stages.inspect_weights import inspect, show, to_json

    inspections = [inspect(path) for path in files]
    show(inspections, layers)
    if json_file:
        write_atomic(json_file, to_json(inspections).encode())


@app.command("calculate-performance", help="The same as compare.")
@app.command()
def compare(
    files: Files,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Evaluation sets, measure, tiles.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override; repeatable.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the table as CSV.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="... as JSON.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--md", help="... as Markdown.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder for side-by-side pictures of every sample.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Every network in half precision too, beside itself.")
    ] = False,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", help="Draw quality against MACs as PNG.")
    ] = None,
) -> None:
    """Quality, parameters, MACs, size and latency of several files in one table."""
    from kdp.files import write_atomic
    from kdp.stages.compare import tables
    from kdp.stages.compare.compare import compare as run
    from kdp.stages.compare.compare import settings

    chosen = settings(config, values or (), device)
    comparison = run(files, chosen, images, half)
    tables.show(comparison)
    for path, kind in ((csv_file, "csv"), (json_file, "json"), (markdown_file, "md")):
        if path:
            write_atomic(path, tables.WRITERS[kind](comparison).encode())
    if plot_file:
        from kdp.stages.compare.plots import to_png

        write_atomic(plot_file, to_png(comparison, chosen))
