"""The command line: parse, call the stage, print. Nothing heavy is imported before a stage runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kdp import __version__
from kdp.errors import Interrupted, KdpError
from kdp.log import set_up_logging

if TYPE_CHECKING:
    from kdp.config import Config

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="YAML configuration file.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compress trained networks by structured pruning and knowledge distillation."""
    set_up_logging()


@app.command()
def train(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a network: a teacher, or a student with `distill` and `dynamic`."""
    from kdp.config.compose import load_config
    from kdp.stages.train.train import train as run

    for path in run(load_config(config, overrides or ()), resume).values():
        typer.echo(path)


@app.command()
def teach(config: ConfigOption, overrides: Overrides = None) -> None:
    """Write down what the teachers say of every training sample, for many trainings."""
    from kdp.config.compose import load_config
    from kdp.log import log
    from kdp.stages.train.cache_targets import teach as run

    done = run(load_config(config, overrides or ()))
    log.info(
        f"{done.samples} samples, {done.size / 1e6:.1f} MB; read with distill.targets={done.folder}"
    )
    typer.echo(done.folder)


Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Artifacts, checkpoints.")]


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


@app.command()
def validate(config: ConfigOption, overrides: Overrides = None) -> None:
    """Check before a long run: files, keys, weights, data, one batch, time and memory."""
    from kdp.config.compose import load_config
    from kdp.stages.validate import validate as run

    failed = False
    for check in run(load_config(config, overrides or ())):
        typer.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.what}: {check.found}")
        failed = failed or not check.passed
    raise typer.Exit(2 if failed else 0)


@app.command()
def paths(config: ConfigOption, overrides: Overrides = None) -> None:
    """Print where the stages of a configuration read and write, as Make variables."""
    from kdp.config.compose import composed_files, load_config
    from kdp.stages.paths import make_variables

    chosen, files = load_config(config, overrides or ()), composed_files(config, overrides or ())
    typer.echo(make_variables(chosen, files), nl=False)


@app.command()
def prune(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Search what to remove within a budget; saved importance is reused. Or prune in `rounds`."""
    from kdp.config.compose import load_config

    chosen = load_config(config, overrides or ())
    for path in _prune_in_rounds(chosen, resume) if chosen.rounds else _prune(chosen, resume):
        typer.echo(path)


def _prune(config: Config, resume: bool) -> tuple[Path, ...]:
    from kdp.stages.prune.prune import prune as run
    from kdp.stages.prune.report import show

    found = run(config, resume)
    show(found)
    return found.pruned, found.masks


def _prune_in_rounds(config: Config, resume: bool) -> tuple[Path, ...]:
    from kdp.stages.prune.progressive import prune_in_rounds
    from kdp.stages.prune.report import show_rounds

    found = prune_in_rounds(config, resume)
    show_rounds(found.rows)
    return found.path, found.table


@app.command()
def rebuild(
    config: ConfigOption,
    overrides: Overrides = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="What to rebuild (default: the fine-tuned file).")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Masks file, if not the chain's.")] = None,
    target: Annotated[Path | None, typer.Option("--to", help="Where to write.")] = None,
) -> None:
    """Write the physically smaller network, once it is proven equal to the masked one."""
    from kdp.config.compose import load_config
    from kdp.log import log
    from kdp.stages.prune.rebuild import rebuild as run

    done = run(load_config(config, overrides or ()), source, masks, target)
    share = done.parameters / done.full_parameters
    log.info(f"{done.parameters:,} of {done.full_parameters:,} parameters ({share:.1%}) remain")
    log.info(f"largest relative difference from the masked network: {done.difference:.1e}")
    typer.echo(done.path)


@app.command()
def finetune(config: ConfigOption, overrides: Overrides = None, resume: Resume = False) -> None:
    """Recover a pruned network by distillation; what was removed stays removed."""
    from kdp.config.compose import load_config
    from kdp.stages.train.finetune import finetune as run

    for path in run(load_config(config, overrides or ()), resume).values():
        typer.echo(path)


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


def main() -> None:
    """Run, and turn what the user can mend into one line and an exit code."""
    try:
        app()
    except KdpError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"kdp: {error}", err=True)
        raise SystemExit(2) from error
    except Interrupted as error:
        typer.echo(f"kdp: {error}", err=True)
        raise SystemExit(130) from error
