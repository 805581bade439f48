"""Use: `infer` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdp.cli.app import app
from kdp.errors import KdpError


@app.command()
def infer(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Artifact or checkpoint.")],
    pictures: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PICTURE]...", help="Files, folders, quoted patterns; a video."),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option("--to", help="Folder for pictures (default: photos_x2, photos_faces)."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--x8", help="Mean over eight flips and turns; eight times the work.")
    ] = False,
    camera: Annotated[int | None, typer.Option(min=0, help="Label what a camera sees.")] = None,
    csi: Annotated[
        bool, typer.Option("--csi", help="Label what a Jetson's CSI camera sees.")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Faces: look for none, classify whole pictures.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Write the labelled video (mp4, mkv, avi).")
    ] = None,
    headless: Annotated[
        bool, typer.Option("--headless", help="No window; a line of JSON for every frame.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto.")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override; repeatable.")
    ] = None,
) -> None:
    """Super-resolve pictures; or label faces or objects in pictures, a video or a camera."""
    from kdp.stages.compare.compare import settings
    from kdp.stages.infer.infer import infer as run
    from kdp.stages.infer.stream import Request

    given = (target, ensemble, camera, csi, whole, save, headless)
    asked = Request(tuple(pictures or ()), *given)
    done = run(file, asked, settings(None, values or (), device), typer.echo)
    for path in done.written:
        typer.echo(path, err=headless)
    if done.unreadable:
        raise KdpError("; ".join(done.unreadable))


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Artifact or checkpoint.")],
    to: Annotated[
        Literal["onnx", "torchscript", "ultralytics"], typer.Option("--to", help="The format.")
    ],
    precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option(help="ONNX: half precision, or 8-bit weights and dynamic quantisation."),
    ] = "fp32",
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="HEIGHT WIDTH", help="Input of a network that is fixed to one size."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write (default: beside FILE).")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override; repeatable.")
    ] = None,
) -> None:
    """Write ONNX or TorchScript, once it gives what PyTorch gives."""
    from kdp.log import log
    from kdp.stages.compare.compare import settings
    from kdp.stages.export.export import export as run

    done = run(file, settings(None, values or (), None), to, precision, size, output)
    shape = "x".join(str(side) for side in done.input_shape)
    free = f"; any {', '.join(done.dynamic_axes)}" if done.dynamic_axes else " alone"
    log.info(
        f"input {shape}{free}; largest relative difference from PyTorch: {done.difference:.1e}"
    )
    typer.echo(done.path)
