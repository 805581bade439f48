"""Experiments: `experiments`, `reproduce` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import (
    ConfigFile,
    ExperimentsFolder,
    JsonFile,
    OutputFolder,
    OverwriteFiles,
    SetValues,
    StageDevice,
    TextFormatOption,
    merged,
)
from kdp.errors import KdpError

_FOLDER = Path("experiments")


@command("experiments", "kdp experiments --sort value --reverse")
def experiments(
    folder: ExperimentsFolder = _FOLDER,
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of results.csv to sort by.")
    ] = "timestamp",
    reverse: Annotated[bool, typer.Option("--reverse", help="Largest first.")] = False,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="ID ID", help="Show what differs between two experiments instead."),
    ] = None,
    output: JsonFile = None,
    text_format: TextFormatOption = "table",
    overwrite: OverwriteFiles = False,
) -> None:
    """List the experiments that were recorded, or show what differs between two of them.

    The section `experiments` of a configuration records every result.
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
    if text_format == "json":
        echo(text, nl=False)
    else:
        stage.show(shown)
    if output:
        write_output(output, text.encode())


@command("reproduce", "kdp reproduce face_mask-train-20251125-101500 --device cpu")
def reproduce(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="Id or folder of an experiment.")
    ],
    folder: ExperimentsFolder = _FOLDER,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the new predictions as CSV, too."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Where to compute. Default: as recorded."),
    ] = None,
    overwrite: OverwriteFiles = False,
) -> None:
    """Predict again with an experiment's network: are the predictions the same, byte for byte?"""
    from kdp.stages.experiments.reproduce import reproduce as run

    done = run(experiment, folder, output, device, overwrite)
    if done.different:
        raise KdpError(done.summary)
    echo(done.summary)


@command("sweep", "kdp sweep -c cp_mobile.yml train.lr=1e-3,1e-4 seed=0,1")
def sweep(
    config: ConfigFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE[,VALUE]", help="The grid: keys with one or several values each."
        ),
    ] = None,
    values: SetValues = None,
    device: StageDevice = None,
    output: OutputFolder = None,
    stages: Annotated[
        list[str],
        typer.Option(
            "--stage",
            metavar="STAGE",
            help="Stage to run: train, prune, finetune or rebuild; repeatable, in that order.",
        ),
    ] = ["train"],  # noqa: B006
    launcher: Annotated[
        Literal["local", "joblib", "slurm"],
        typer.Option(help="Run one point after another, several at a time, or on a cluster."),
    ] = "local",
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Points to run at a time.")
    ] = None,
) -> None:
    """Run stages for every point of a grid of configurations."""
    from kdp.stages.sweep.sweep import show
    from kdp.stages.sweep.sweep import sweep as run

    points = run(config, merged(overrides, values, device, output), stages, launcher, jobs)
    show(points)
    failed = sum(point.status != "done" for point in points)
    if failed:
        raise KdpError(f"{failed} of {len(points)} points failed")
