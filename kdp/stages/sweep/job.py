"""One point of a grid: a Hydra job that starts kdp once per stage.

This module is the Hydra application that `kdp sweep` starts; see `kdp.stages.sweep.sweep`. A point
starts kdp in a process of its own, because accelerate allows one setting of devices and precision
for each, and because a point that dies then takes no other with it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kdp.errors import first_line
from kdp.files import write_atomic
from kdp.serialize import json_line
from kdp.stages.chains import NO_CHAINS
from kdp.stages.sweep.parent import POLL
from kdp.stages.sweep.quality import StageQuality, evaluated_metrics, recorded_quality

LONGEST_SUFFIX = 60
"""Characters of the values in the name of a point."""
SETTINGS = "settings.json"
"""What all points share. Not for Hydra: it would read `${` in a value as a reference."""
OUTCOME, LOG, STOP = "outcome.json", "log.txt", "stop"
_RUN_MODULE = (
    "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
    "from kdp.stages.sweep.parent import end_with_parent; end_with_parent({parent}); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
"""`python -m MODULE` without the current folder as the first place to import from."""


@dataclass(frozen=True)
class SweepPoint:
    """The outcome of one point of the grid.

    Attributes:
        number: its place in the grid, from 0.
        overrides: those that vary over the grid.
        status: "done", "failed" or "stopped".
        error: the last message, where it failed.
        qualities: of the network that each stage wrote.
    """

    number: int
    overrides: list[str]
    status: str
    error: str = ""
    qualities: list[StageQuality] = field(default_factory=list)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> SweepPoint:
        """The point that `asdict` made plain."""
        qualities = [StageQuality(**quality) for quality in plain["qualities"]]
        return cls(**{**plain, "qualities": qualities})

    @property
    def result(self) -> str:
        """The quality after the last stage or the error, for a table."""
        primary = self.qualities[-1].primary if self.qualities and not self.error else None
        return f"{primary[0]} {primary[1]:.4f}" if primary else self.error


def is_hydra(override: str) -> bool:
    """Whether an override is for Hydra itself."""
    return override.lstrip("+").startswith(("hydra.", "hydra/"))


def start(
    module: str, arguments: Sequence[str], log: IO[str], output: IO[str] | None = None
) -> subprocess.Popen[str]:
    """Run a module as a program without a keyboard, and without modules of the current folder.

    It receives SIGTERM when this process ends, or is killed.

    Args:
        module: its name.
        arguments: of the program.
        log: receives what it prints on standard error, and on standard output without `output`.
        output: receives standard output; without it the program gets a session of its own.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _RUN_MODULE.format(parent=os.getpid()), module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output or log,
        stderr=log,
        text=True,
        # A later stage without --config does not continue a point. Launchers start further
        # interpreters, which leave out the current folder by themselves from Python 3.11 on.
        env={**os.environ, NO_CHAINS: "1", "PYTHONSAFEPATH": "1"},
        start_new_session=output is None,
    )


@hydra.main(version_base="1.3", config_path=None)
def _point(_: DictConfig) -> None:
    """The Hydra job: run the stages and write their outcome."""
    job = HydraConfig.get()
    folder, number = Path(job.runtime.output_dir), int(job.job.num)
    own = json.loads((folder.parent / SETTINGS).read_text())
    overrides: Any = OmegaConf.to_container(job.overrides.task)  # as it is, references too
    varied = [override.lstrip("+") for override in overrides]
    run_point(folder, own, [override for override in varied if not is_hydra(override)], number)


def run_point(folder: Path, settings: Mapping[str, Any], varied: list[str], number: int) -> None:
    """Run the stages of a point and write its outcome.

    Args:
        folder: of the point.
        settings: the content of `SETTINGS`.
        varied: its overrides.
        number: its place in the grid.
    """
    name = f"output.name={point_name(settings['name'], varied, number)}"
    overrides = [*settings["fixed"], *varied, name]
    point = SweepPoint(number, varied, "done")
    try:
        for stage in settings["stages"]:
            point.qualities.append(_run(stage, settings["file"], overrides, folder))
    except _Ended as ended:
        point = replace(point, status=ended.status, error=ended.error)
    except Exception as error:  # one point must not stop the others
        point = replace(point, status="failed", error=first_line(error))
    write_atomic(folder / OUTCOME, json_line(asdict(point)).encode())


class _Ended(Exception):
    """A point that ends before its last stage has run."""

    def __init__(self, status: str, error: str = "") -> None:
        super().__init__(status)
        self.status, self.error = status, error


def point_name(name: str, varied: Sequence[str], number: int) -> str:
    """The `output.name` of a point, which no other point of its grid has.

    Args:
        name: of the configuration; the point's own value takes its place if it varies.
        varied: overrides of the point.
        number: its place in the grid.
    """
    values = dict(override.split("=", 1) for override in varied)
    # A value that Hydra would interpret comes with quotes.
    name = values.pop("output.name", name).strip("'\"")
    return f"{name}_{_suffix(list(values.values()), number)}" if values else name


def _suffix(values: Sequence[str], number: int) -> str:
    """The values as part of a file name, numbered where two points could get the same name."""
    clean = [re.sub(r"[^\w.+-]|_", "-", value).strip("-") for value in values]
    suffix = "_".join(clean)
    if clean == values and 0 < len(suffix) <= LONGEST_SUFFIX:
        return suffix
    return f"{suffix[:LONGEST_SUFFIX]}_{number}"


def _run(stage: str, file: str, overrides: Sequence[str], folder: Path) -> StageQuality:
    """Run a stage, and measure its network where the stage itself does not.

    Raises:
        _Ended: it failed or was stopped.
    """
    output = folder / f"{stage}.txt"
    _kdp([stage, "--config", file, *overrides], output)
    quality, missing = recorded_quality(stage, output)
    if not missing:
        return quality
    output = folder / f"{stage}_quality.json"
    values = (part for override in overrides for part in ("--set", override))
    _kdp(["evaluate", quality.file, "--config", file, *values, "--format", "json"], output)
    return replace(quality, metrics=evaluated_metrics(output))


def _kdp(arguments: Sequence[str], output: Path) -> None:
    """Run kdp; what it prints on standard output becomes a file.

    Raises:
        _Ended: it failed or was stopped.
    """
    folder, stop = output.parent, output.parent.parent / STOP
    if stop.exists():
        raise _Ended("stopped")
    with (folder / LOG).open("a") as log, output.open("w") as printed:
        code = _wait(start("kdp", arguments, log, printed), stop)
    if code == 130 or (code and stop.exists()):
        raise _Ended("stopped")
    if code:
        raise _Ended("failed", _complaint(folder / LOG, code))


def _wait(process: subprocess.Popen[str], stop: Path) -> int:
    """The exit code. A file requests the stop: a signal does not reach another machine."""
    signalled, parent = False, os.getppid()
    while True:
        try:
            return process.wait(POLL)
        except subprocess.TimeoutExpired:
            # A worker of joblib outlives Hydra while it runs a point.
            if (stop.exists() or os.getppid() != parent) and not signalled:
                process.send_signal(signal.SIGTERM)
                signalled = True


def _complaint(log: Path, code: int) -> str:
    """The last message of kdp, or the last line of the log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    messages = [line.removeprefix("kdp: ") for line in lines if line.startswith("kdp: ")]
    return (messages or lines or [f"exit code {code}"])[-1]


def _stop_all_points(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C: SIGTERM comes when `kdp sweep` is killed."""
    for option in sys.argv:
        if option.startswith("--config-path="):
            Path(option.partition("=")[2], STOP).touch()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop_all_points)
    _point()
