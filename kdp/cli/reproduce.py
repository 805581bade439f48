"""`kdp reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import EXPERIMENTS, ExperimentsFolder, OverwriteFiles
from kdp.errors import KdpError


@command("reproduce", "kdp reproduce face_mask-train-20251125-101500 --device cpu")
def reproduce(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Id or folder of an experiment.")
    ],
    folder: ExperimentsFolder = EXPERIMENTS,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Also write the new predictions as CSV."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Where to compute. Default: as recorded."),
    ] = None,
    overwrite: OverwriteFiles = False,
) -> None:
    """Predict again with an experiment's network and compare the predictions byte for byte."""
    from kdp.stages.experiments.reproduce import reproduce as run

    done = run(experiment, folder, output, device, overwrite)
    if done.different:
        raise KdpError(done.summary)
    echo(done.summary)
