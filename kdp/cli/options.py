"""Arguments and options that several commands share, and what they amount to together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

_SHIPPED = "kdp configs lists the configurations that come with kdp."
ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help=f"Configuration file; {_SHIPPED}"),
]
ChainConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help=f"Configuration file; {_SHIPPED} Default: continue the chain that "
        "was run last in this folder (see kdp chains).",
    ),
]
EvaluationConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Configuration file with the evaluation sets, `measure` and `tiles`. Default: the "
        "data that comes with kdp.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Change keys of the configuration, such as train.lr=1e-4."
    ),
]
SetValues = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one key of the configuration; repeatable."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE", help="Where to compute: auto, cpu, cuda or cuda:1. Default: auto."
    ),
]
StageDevice = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Where to compute: auto, cpu or cuda; the same as device=DEVICE. Default: the "
        "configuration's.",
    ),
]
OutputFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Folder for the networks, and for teachers that the configuration places in "
        "output.dir; the same as output.dir=FOLDER.",
    ),
]
Evaluate = Annotated[
    bool,
    typer.Option(
        "--evaluate/--no-evaluate",
        help="Measure the quality before pruning, as cut and recovered.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the checkpoint of an interrupted run.")
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace existing files, even those not written by kdp; discard an unfinished run.",
    ),
]
OverwriteFiles = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing files, even those not written by kdp.")
]
Rerun = Annotated[
    bool,
    typer.Option(
        "--rerun",
        hidden=True,
        help="Resume a checkpoint that fits; replace what an earlier --rerun wrote. For make.",
    ),
]
NetworkFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Artifact, third-party checkpoint or ONNX file."),
]
NetworkFiles = Annotated[
    list[Path],
    typer.Argument(metavar="FILE", help="Artifacts, third-party checkpoints or ONNX files."),
]
EXPERIMENTS = Path("experiments")
ExperimentsFolder = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="Folder that holds the experiments.")
]

TableFormat = Literal["table", "csv", "json", "md"]
TextFormat = Literal["table", "json"]
TableFormatOption = Annotated[
    TableFormat, typer.Option("--format", help="Format of the printed output.")
]
TextFormatOption = Annotated[
    TextFormat, typer.Option("--format", help="Format of the printed output.")
]
TableFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Also write the table to a file; its extension (.csv, .json or .md) sets the format. "
        "Repeatable.",
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Also write everything as JSON."),
]


def merged(
    overrides: Sequence[str] | None,
    values: Sequence[str] | None = None,
    device: str | None = None,
    output: Path | None = None,
) -> list[str]:
    """All changes of a configuration as KEY=VALUE; later ones win.

    Args:
        overrides: given as arguments.
        values: given by `--set`.
        device: given by `--device`.
        output: given by `--output`, a folder.
    """
    given = [*(overrides or ()), *(values or ())]
    if output is not None:
        given.append(f"output.dir={output}")
    if device is not None:
        given.append(f"device={device}")
    return given
