"""`kdp sweep`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from kdp.cli.app import command
from kdp.cli.options import (
    ConfigFile,
    OutputFolder,
    SetValues,
    StageDevice,
    merged,
)
from kdp.errors import KdpError


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
