"""`kdp sweep`: a grid of configurations by Hydra's multirun; each point runs kdp itself.

`kdp.stages.sweep.launcher` starts `kdp.stages.sweep.job` as a program, a Hydra application: it
expands the grid and hands the points to a launcher of Hydra's (one after another, joblib or SLURM).

    runs/<name>_sweep/<time>/sweep.yaml         how points are launched, for Hydra
                             settings.json      what every point runs
                             log.txt            output of Hydra
                             <number>/log.txt, outcome.json
                             summary.csv, summary.json
                             compare.csv, compare.json, compare.md
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.config.overrides import several_values, split_override
from kdp.errors import KdpError, suggest
from kdp.files import input_path, real_path, write_atomic
from kdp.log import log
from kdp.serialize import json_text
from kdp.stages.compare.compare import Comparison, compare
from kdp.stages.compare.tables import WRITERS as COMPARISON_WRITERS
from kdp.stages.sweep.job import SETTINGS, SweepPoint, is_hydra
from kdp.stages.sweep.launcher import launch
from kdp.stages.sweep.summary import WRITERS, earlier_qualities

STAGES = ("train", "prune", "finetune", "rebuild")
LAUNCHERS = {"local": "basic", "joblib": "joblib", "slurm": "submitit_slurm"}
_PLUGINS = {"joblib": "hydra-joblib-launcher", "slurm": "hydra-submitit-launcher"}
_JOBS = {"joblib": "n_jobs", "slurm": "array_parallelism"}


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did.

    Attributes:
        folder: its logs, outcomes and summary.
        points: one per point of the grid.
        base: the configuration without what varies.
    """

    folder: Path
    points: list[SweepPoint]
    base: Config


def sweep(
    file: Path,
    overrides: Sequence[str],
    stages: Sequence[str] = ("train",),
    launcher: str = "local",
    jobs: int | None = None,
) -> SweepResult:
    """Run stages for every point of a grid; a point that fails does not stop the others.

    Every point gets an `output.name` of its own, which begins with that of the configuration.

    Args:
        file: the configuration.
        overrides: KEY=VALUE with one or several values (`a,b`, `range(1,4)`); those of Hydra itself
            (`hydra.launcher.partition=gpu`) are passed on.
        stages: run one after another at every point.
        launcher: a key of `LAUNCHERS`.
        jobs: points at a time, None for the default of the launcher.

    Raises:
        KdpError: unknown stage, launcher or key, or Hydra cannot start.
        Interrupted: on SIGINT, SIGTERM or SIGHUP, after the running points have stopped.
    """
    _check(stages, launcher, jobs)
    fixed, grid, total = _split(overrides)
    base = load_config(file, [o for o in fixed if not is_hydra(o)])
    folder = _folder(base)
    settings = {
        "file": str(file),
        "stages": list(stages),
        "fixed": [o for o in fixed if not is_hydra(o)],
        "name": base.output.name,
    }
    write_atomic(folder / SETTINGS, json_text(settings).encode())
    write_atomic(folder / "sweep.yaml", _application(folder, launcher, jobs).encode())
    log.info(f"Running {total} points; logs are in {folder}")
    points = launch(folder, [*(o for o in fixed if is_hydra(o)), *grid], total)
    for ending, write in WRITERS.items():
        write_atomic(folder / f"summary.{ending}", write(points).encode())
    log.info(f"Mean and spread are in {folder / 'summary.csv'} and summary.json")
    return SweepResult(folder, points, base)


def compare_points(result: SweepResult) -> Comparison:
    """The last network of every point that is done, after the teacher where all have the same one.

    The primary metrics after the earlier stages are rows of the table.

    Raises:
        KdpError: no point is done, or see `kdp.stages.compare.compare`.
    """
    done = [point for point in result.points if point.status == "done"]
    if not done:
        raise KdpError("no point is done: there is nothing to compare")
    files = [Path(point.qualities[-1].file) for point in done]
    varied = {split_override(override)[0] for point in done for override in point.overrides}
    teacher = result.base.teacher
    if (
        teacher
        and not varied & {"teacher", "output.dir", "output.name"}
        and input_path(teacher).is_file()
    ):
        files.insert(0, teacher)
    comparison = compare(list(dict.fromkeys(files)), result.base)
    comparison = replace(comparison, earlier=earlier_qualities(done, comparison.columns))
    for ending, write in COMPARISON_WRITERS.items():
        write_atomic(result.folder / f"compare.{ending}", write(comparison).encode())
    return comparison


def _check(stages: Sequence[str], launcher: str, jobs: int | None) -> None:
    for stage in stages:
        if stage not in STAGES:
            raise KdpError(f"kdp sweep cannot run {stage!r}; {suggest(stage, STAGES)}")
    if launcher == "local" and (jobs or 1) > 1:
        raise KdpError("the launcher local runs one point at a time; give --launcher joblib")
    try:
        metadata.version(_PLUGINS.get(launcher, "hydra-core"))
    except metadata.PackageNotFoundError as error:
        package = _PLUGINS[launcher]
        raise KdpError(f"the launcher {launcher!r} is missing: pip install {package}") from error
    if launcher == "slurm" and not which("sbatch"):
        raise KdpError("SLURM is not available: the program sbatch was not found")


def _split(overrides: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Overrides with one value, overrides with several in Hydra's form, and how many points."""
    fixed: list[str] = []
    grid: list[str] = []
    counts: list[int] = []
    for override in overrides:
        values, key = several_values(override), split_override(override)[0]
        if override.startswith("~"):
            fixed.append(override)
        elif len(values) == 1 or is_hydra(override):
            fixed.append(f"{override.partition(key)[0]}{key}={','.join(values)}")
        else:
            _check_different(key, values, grid)
            counts.append(len(values))
            # The Hydra application has none of kdp's keys: `++` adds them, whatever they are.
            grid.append(f"++{key}={','.join(values)}")
    return fixed, grid, math.prod(counts)


def _check_different(key: str, values: Sequence[str], grid: Sequence[str]) -> None:
    """Refuse two equal points, which would write the same files.

    Args:
        key: that varies.
        values: its values.
        grid: the keys before it, with their values.

    Raises:
        KdpError: the key or a value occurs twice.
    """
    if any(other.startswith(f"++{key}=") for other in grid):
        raise KdpError(f"the sweep varies {key} twice: list all its values once")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise KdpError(f"the sweep has the value {key}={twice} twice: leave one out")


def _folder(config: Config) -> Path:
    parent = config.output.runs / f"{config.output.name}_sweep"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        return real_path(Path(tempfile.mkdtemp(prefix=stamp, dir=parent)))
    except OSError as error:
        raise KdpError(f"cannot write {parent}: {error.strerror}") from error


def _application(folder: Path, launcher: str, jobs: int | None) -> str:
    """The configuration of the Hydra application."""
    groups = {"launcher": LAUNCHERS[launcher], "job_logging": "disabled"}
    groups["hydra_logging"] = "disabled"
    settings: dict[str, Any] = {
        "output_subdir": None,
        "sweep": {"dir": str(folder), "subdir": "${hydra.job.num}"},
    }
    if jobs and launcher in _JOBS:
        settings["launcher"] = {_JOBS[launcher]: jobs}
    defaults = [{f"override hydra/{group}": name} for group, name in groups.items()]
    return yaml.safe_dump({"defaults": [*defaults, "_self_"], "hydra": settings}, sort_keys=False)
