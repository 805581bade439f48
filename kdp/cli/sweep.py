"""`kdp sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdp.cli.app import command
from kdp.cli.echo import echo
from kdp.cli.options import ConfigFile, OutputFolder, SetValues, StageDevice, merged
from kdp.errors import KdpError

if TYPE_CHECKING:
    from kdp.stages.sweep.sweep import SweepResult


@command(
    "sweep",
    "kdp sweep -c cp_mobile.yml train.lr=1e-3,1e-4 seed=0,1,2",
    "kdp sweep -c face_mask_prune.yml pruning_ratio=0.3,0.5,0.7 --stage prune --stage finetune "
    "--stage rebuild --compare",
)
def sweep(
    config: ConfigFile,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE[,VALUE]", help="The grid: each key with one or more values."
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
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare the teacher and the last network of every point, as kdp compare does.",
        ),
    ] = False,
    printed: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="Format of the summary.")
    ] = "table",
) -> None:
    """Run stages for every point of a grid of configurations.

    The summary has mean and standard deviation over the points that differ only in `seed`; after
    `prune`, quality is also measured before fine-tuning. The sweep's folder has it as CSV and JSON.
    """
    from kdp.stages.sweep.sweep import sweep as run

    result = run(config, merged(overrides, values, device, output), stages, launcher, jobs)
    _print(result, printed, compare)
    failed = sum(point.status != "done" for point in result.points)
    if failed:
        raise KdpError(f"{failed} of {len(result.points)} points failed")


def _print(result: SweepResult, printed: str, compare: bool) -> None:
    """Print the summary, and compare the networks of the points that succeeded.

    Without a spread over seeds the comparison has all that the summary would have.
    """
    from kdp.stages.compare import tables
    from kdp.stages.sweep import summary
    from kdp.stages.sweep.sweep import compare_points

    done = [point.status == "done" for point in result.points]
    if printed != "table":
        echo(summary.WRITERS[printed](result.points), nl=False)
    elif not (compare and all(done)) or summary.is_repeated(result.points):
        summary.show(result.points)
    if compare and any(done):
        comparison = compare_points(result)
        if printed == "table":
            tables.show(comparison)
