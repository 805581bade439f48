"""`kdp infer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import Device, NetworkFile, OverwriteFiles, SetValues, merged
from kdp.errors import KdpError

_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Folder for images, or a file: .png for a single image; .mp4, .mkv or .avi for a "
        "labelled video; .csv, .json or .md for the table of sounds.",
    ),
]
_Ensemble = Annotated[
    bool,
    typer.Option(
        "--x8", help="Super-resolution: average over eight flips and rotations; 8 times slower."
    ),
]
_Headless = Annotated[
    bool,
    typer.Option("--headless", help="Open no window; print one line of JSON per file or frame."),
]
_Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Sounds: table, csv, json, md, or a format of the family (dcase). Default: the "
        "extension of --output; without it, a table is printed.",
    ),
]


@command(
    "infer",
    "kdp infer small.pth photos/ -o upscaled/",
    "kdp infer faces.pth --camera 0 -o labelled.mp4",
    "kdp infer scenes.pth recordings/ -o scenes.csv",
)
def infer(
    file: NetworkFile,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT", help="Images or sounds, folders, quoted patterns, or one video."
        ),
    ] = None,
    output: _Output = None,
    table_format: _Format = None,
    ensemble: _Ensemble = False,
    camera: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Label the frames of camera N."),
    ] = None,
    csi: Annotated[
        bool, typer.Option("--csi", help="Label the frames of a Jetson's CSI camera.")
    ] = False,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Faces: classify whole images instead of the faces in them."),
    ] = False,
    headless: _Headless = False,
    overwrite: OverwriteFiles = False,
    device: Device = None,
    values: SetValues = None,
) -> None:
    """Super-resolve images; label faces or objects in images, a video or a camera's frames; or
    label sounds with their acoustic scene.

    Writes under the current folder, not next to the input.
    """
    from kdp.stages.defaults import config_or_defaults
    from kdp.stages.infer.display import CODECS
    from kdp.stages.infer.infer import infer as run
    from kdp.stages.infer.request import InferRequest

    is_video = output is not None and output.suffix.lower() in CODECS
    folder, video = (None, output) if is_video else (output, None)
    given = (folder, ensemble, camera, csi, whole, video, headless, overwrite, table_format)
    request = InferRequest(tuple(inputs or ()), *given)
    done = run(file, request, config_or_defaults(None, merged(None, values, device)), echo)
    for path in done.written:
        echo(path, err=headless)
    if done.unreadable:
        raise KdpError("; ".join(done.unreadable))
