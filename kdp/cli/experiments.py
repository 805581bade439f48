"""Experiments: `runs`, `evaluate` and `sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kdp.cli.app import ConfigOption, app
from kdp.errors import KdpError

Experiments = Annotated[Path, typer.Option(help="Folder of the experiments.")]


@app.command()
def runs(
    folder: Experiments = Path("experiments"),
    sort: Annotated[
        str, typer.Option(metavar="COLUMN", help="A column of results.csv.")
    ] = "timestamp",
    reverse: Annotated[bool, typer.Option("--reverse", help="The largest first.")] = False,
    diff: Annotated[
        tuple[str, str] | None, typer.Option(metavar="ID ID", help="What two have different.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it as JSON.")] = None,
) -> None:
    """The experiments that were kept (see `experiments`), or two of them side by side."""
    from dataclasses import asdict

    from kdp.files import write_atomic
    from kdp.stages.compare.tables import json_text
    from kdp.stages.experiments import list as stage

    found = stage.difference(folder, *diff) if diff else stage.runs(folder, sort, reverse)
    stage.show(found)
    if json_file:
        write_atomic(json_file, json_text(asdict(found)).encode())


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An experiment's id or folder.")],
    folder: Experiments = Path("experiments"),
    target: Annotated[
        Path | None, typer.Option("--to", help="File for the new predictions (default: none).")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or auto (default: where it was done before).")
    ] = None,
) -> None:
    """Predict again with a kept network: are the predictions the same, byte for byte?"""
    from kdp.stages.experiments.reproduce import evaluate as again

    done = again(run, folder, target, device)
    if done.different:
        raise KdpError(done.summary)
    typer.echo(done.summary)


@app.command()
def sweep(
    config: ConfigOption,
    overrides: Annotated[list[str], typer.Argument(metavar="KEY=VALUE[,VALUE]...")],
    stages: Annotated[
        list[str], typer.Option("--stage", help="train, prune, finetune, rebuild; repeatable.")
    ] = ["train"],  # noqa: B006
    launcher: Annotated[
        Literal["local", "joblib", "slurm"],
        typer.Option(help="One point after another, several at a time, or on a cluster."),
    ] = "local",
    jobs: Annotated[int | None, typer.Option(min=1, help="Points at a time.")] = None,
) -> None:
    """Run stages for every point of a grid: `kdp sweep -c FILE train.lr=1e-3,1e-4 seed=0,1`."""
    from kdp.stages.sweep.sweep import show
    from kdp.stages.sweep.sweep import sweep as run

    points = run(config, overrides, stages, launcher, jobs)
    show(points)
    failed = sum(point.status != "done" for point in points)
    if failed:
        raise KdpError(f"{failed} of {len(points)} points failed")
