"""`kdp sweep`: a grid of configurations by Hydra's multirun; every point is a run of kdp itself.

`kdp sweep` starts this module as a program, which is a Hydra application: it expands the grid and
hands the points to a launcher of Hydra's (one after another, joblib or SLURM). A point starts kdp
in a process of its own, because accelerate allows one setting of devices and precision for each,
and because a point that dies then takes no other with it.

    runs/<name>_sweep/<time>/sweep.yaml         what is swept, for Hydra
                             log.txt            what Hydra said
                             <number>/log.txt, outcome.json
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from shutil import which
from typing import IO, Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdp.compose import load_config
from kdp.config import Config
from kdp.errors import Interrupted, KdpError, hint
from kdp.files import write_atomic
from kdp.progress import say
from kdp.training.interrupt import on_request

STAGES = ("train", "prune", "finetune", "rebuild")
LAUNCHERS = {"local": "basic", "joblib": "joblib", "slurm": "submitit_slurm"}
_PLUGINS = {"joblib": "hydra-joblib-launcher", "slurm": "hydra-submitit-launcher"}
_JOBS = {"joblib": "n_jobs", "slurm": "array_parallelism"}
_OWN = "kdp_sweep"
"""The key of this module's settings in `sweep.yaml`, beside those of the grid."""
_OUTCOME, _LOG, _STOP = "outcome.json", "log.txt", "stop"
_POLL = 0.2


@dataclass(frozen=True)
class Point:
    """What became of a point of the grid.

    Attributes:
        number: its place in the grid, from 0.
        overrides: those that vary.
        status: "done", "failed" or "stopped".
        error: what its last line said, where it failed.
        headline, value: how good the network is, where the stages measured it.
    """

    number: int
    overrides: list[str]
    status: str
    error: str = ""
    headline: str = ""
    value: float | None = None

    @property
    def result(self) -> str:
        """In a few words."""
        return f"{self.headline} {self.value:.4f}" if self.value is not None else self.error


def sweep(
    file: Path,
    overrides: Sequence[str],
    stages: Sequence[str] = ("train",),
    launcher: str = "local",
    jobs: int | None = None,
) -> list[Point]:
    """Run stages for every point of a grid; a point that fails does not stop the others.

    Every point has an `output.name` of its own, unless `overrides` gives one.

    Args:
        file: the configuration.
        overrides: KEY=VALUE, where the value may be several (`a,b`, `range(1,4)`); those of Hydra
            (`hydra.launcher.partition=gpu`) go to Hydra.
        stages: run one after another at every point.
        launcher: a key of `LAUNCHERS`.
        jobs: points at a time; None: as many as the launcher likes.

    Raises:
        KdpError: there is no such stage, launcher or key, or Hydra cannot start.
        Interrupted: on SIGINT or SIGTERM, once the points that ran have stopped.
    """
    _check(stages, launcher, jobs)
    fixed, grid, total = _split(overrides)
    base = load_config(file, [o for o in fixed if not _is_hydra(o)])
    named = any(o.lstrip("+").startswith("output.name=") for o in overrides)
    folder = _folder(base)
    own = {
        "file": str(file),
        "stages": list(stages),
        "fixed": [o for o in fixed if not _is_hydra(o)],
        "name": None if named else base.output.name,
    }
    write_atomic(folder / "sweep.yaml", _application(folder, own, launcher, jobs).encode())
    say(f"{total} points; logs are in {folder}")
    return _launch(folder, [*(o for o in fixed if _is_hydra(o)), *grid], total)


def show(points: Sequence[Point], console: Console | None = None) -> None:
    """Print what became of every point."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("point", "status", "result"):
        table.add_column(title, overflow="fold")
    for point in points:
        cells = (" ".join(point.overrides), point.status, point.result)
        table.add_row(*(escape(cell) for cell in cells))
    (console or Console()).print(table)


def _check(stages: Sequence[str], launcher: str, jobs: int | None) -> None:
    for stage in stages:
        if stage not in STAGES:
            raise KdpError(f"kdp sweep cannot run {stage!r}; {hint(stage, STAGES)}")
    if launcher == "local" and (jobs or 1) > 1:
        raise KdpError("the launcher local runs one point at a time; give --launcher joblib")
    try:
        metadata.version(_PLUGINS.get(launcher, "hydra-core"))
    except metadata.PackageNotFoundError as error:
        raise KdpError(f"the launcher {launcher!r} is missing: pip install 'kdp[sweep]'") from error
    if launcher == "slurm" and not which("sbatch"):
        raise KdpError("there is no SLURM here: the program sbatch is not found")


def _is_hydra(override: str) -> bool:
    return override.lstrip("+").startswith(("hydra.", "hydra/"))


def _split(overrides: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Overrides with one value, those with several (forced for Hydra), and how many points."""
    fixed, grid, counts = [], [], []
    for override in overrides:
        try:
            parsed = OverridesParser.create().parse_override(override)
            if not parsed.is_sweep_override():
                fixed.append(override)
                continue
            counts.append(sum(1 for _ in parsed.sweep_string_iterator()))
        except (HydraException, AttributeError) as error:
            raise KdpError(f"the override {override!r} cannot be swept: {_line(error)}") from error
        grid.append(f"++{override.lstrip('+')}")
    return fixed, grid, math.prod(counts)


def _folder(config: Config) -> Path:
    parent = config.output.runs / f"{config.output.name}_sweep"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S-", time.gmtime())
        return Path(tempfile.mkdtemp(prefix=stamp, dir=parent)).resolve()
    except OSError as error:
        raise KdpError(f"cannot write {parent}: {error.strerror}") from error


def _application(folder: Path, own: dict[str, Any], launcher: str, jobs: int | None) -> str:
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
    content = {"defaults": [*defaults, "_self_"], "hydra": settings, _OWN: own}
    return yaml.safe_dump(content, sort_keys=False)


def _launch(folder: Path, arguments: list[str], total: int) -> list[Point]:
    """Run the application in a session of its own, so that Ctrl-C reaches points in good order."""
    command = [sys.executable, "-m", "kdp.stages.sweep", "--multirun"]
    command += [f"--config-path={folder}", "--config-name=sweep", *arguments]
    with (folder / _LOG).open("w") as log, on_request() as interrupt:
        engine = _start(command, log)
        try:
            points: list[Point] = []
            while engine.poll() is None:
                if interrupt.requested and not (folder / _STOP).exists():
                    (folder / _STOP).touch()
                    say("stopping every point after its checkpoint; Ctrl-C again ends at once")
                time.sleep(_POLL)
                points = _news(folder, points, total)
        finally:  # a second Ctrl-C
            if engine.poll() is None:
                os.killpg(engine.pid, signal.SIGKILL)
    points = _news(folder, points, total)
    if interrupt.requested:
        done = sum(point.status == "done" for point in points)
        raise Interrupted(f"stopped; {done} of {total} points are done")
    if len(points) < total:
        raise KdpError(f"{total - len(points)} points did not run: {_first_line(folder / _LOG)}")
    return points


def _news(folder: Path, known: list[Point], total: int) -> list[Point]:
    """All points that ended, in order; of those not known yet a line is shown."""
    found = [json.loads(path.read_text()) for path in folder.glob(f"*/{_OUTCOME}")]
    points = sorted((Point(**one) for one in found), key=lambda point: point.number)
    for point in points:
        if point not in known:
            where = f"point {point.number + 1} of {total}, {' '.join(point.overrides)}"
            say(f"{where}: {point.status}, {point.result}".rstrip(", "))
    return points


@hydra.main(version_base="1.3", config_path=None)
def _point(settings: DictConfig) -> None:
    """A job of Hydra's: run the stages, and write what became of them."""
    own: Any = OmegaConf.to_container(settings[_OWN])
    job = HydraConfig.get()
    folder, number = Path(job.runtime.output_dir), int(job.job.num)
    varied = [override.lstrip("+") for override in job.overrides.task]
    varied = [override for override in varied if not _is_hydra(override)]
    named = [f"output.name={own['name']}_{_suffix(varied, number)}"] if own["name"] else []
    arguments = ["--config", own["file"], *own["fixed"], *varied, *named]
    try:
        outcome = _run(own["stages"], arguments, folder)
    except Exception as error:  # whatever it is, the other points go on
        outcome = {"status": "failed", "error": _line(error)}
    point = Point(number, varied, **outcome)
    write_atomic(folder / _OUTCOME, json.dumps(asdict(point)).encode())


def _suffix(varied: Sequence[str], number: int) -> str:
    """The values, fit for a file; with the number where another point could get the same."""
    values = [override.partition("=")[2] for override in varied]
    clean = [re.sub(r"[^\w.+-]|_", "-", value).strip("-") for value in values]
    return "_".join(clean if clean == values and clean else [*clean, str(number)])


def _run(stages: Sequence[str], arguments: list[str], folder: Path) -> dict[str, Any]:
    """Status, error, headline and value."""
    for stage in stages:
        if (folder.parent / _STOP).exists():
            return {"status": "stopped"}
        output = folder / f"{stage}.txt"
        with (folder / _LOG).open("a") as log, output.open("w") as paths:
            process = _start([sys.executable, "-m", "kdp", stage, *arguments], log, paths)
            code = _wait(process, folder.parent / _STOP)
        if code == 130 or (code and (folder.parent / _STOP).exists()):
            return {"status": "stopped"}
        if code:
            return {"status": "failed", "error": _complaint(folder / _LOG, code)}
    return {"status": "done", **_quality(output)}


def _start(
    command: list[str], log: IO[str], output: IO[str] | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output or log,
        stderr=log,
        text=True,
        start_new_session=output is None,
    )


def _wait(process: subprocess.Popen[str], stop: Path) -> int:
    """The exit code; a file asks to stop, because a signal does not reach another machine."""
    asked = False
    while True:
        try:
            return process.wait(_POLL)
        except subprocess.TimeoutExpired:
            if stop.exists() and not asked:
                process.send_signal(signal.SIGINT)
                asked = True


def _quality(output: Path) -> dict[str, Any]:
    """The headline metric of the file a stage named first, where it has one."""
    from kdp.artifacts import load
    from kdp.tasks import task_for

    written = [Path(line) for line in output.read_text().splitlines() if line.endswith(".pth")]
    artifact = load(written[0])
    config = Config.model_validate(artifact.record["config"])
    headline = task_for(artifact.arch or {}, config).headline
    metrics = artifact.record["metrics"].get(next(iter(config.evaluation), ""), {})
    return {"headline": headline, "value": metrics[headline]} if headline in metrics else {}


def _complaint(log: Path, code: int) -> str:
    """What kdp said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = [line.removeprefix("kdp: ") for line in lines if line.startswith("kdp: ")]
    return (said or lines or [f"exit code {code}"])[-1]


def _first_line(log: Path) -> str:
    lines = (line.strip() for line in log.read_text(errors="replace").splitlines())
    return f"{next(filter(None, lines), 'Hydra ended early')} (see {log})"


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    _point()
