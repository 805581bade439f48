"""Hydra's multirun in a process of its own: start, watch and stop it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from kdp.errors import Interrupted, KdpError
from kdp.log import log
from kdp.stages.sweep.job import LOG, OUTCOME, STOP, SweepPoint, start
from kdp.stages.sweep.parent import POLL
from kdp.training.shutdown import graceful_shutdown


def launch(folder: Path, arguments: list[str], total: int) -> list[SweepPoint]:
    """Run the Hydra application in a session of its own, so that Ctrl-C does not reach its points.

    Args:
        folder: where `sweep.yaml` is, and where points are written.
        arguments: of Hydra: the grid, and what is set for Hydra itself.
        total: points of the grid.

    Raises:
        KdpError: Hydra stopped before all points had run.
        Interrupted: on SIGINT, SIGTERM or SIGHUP, after the running points have stopped.
    """
    options = ["--multirun", f"--config-path={folder}", "--config-name=sweep", *arguments]
    with (folder / LOG).open("w") as log_file, graceful_shutdown() as shutdown:
        engine = start("kdp.stages.sweep.job", options, log_file)
        try:
            points: list[SweepPoint] = []
            while engine.poll() is None:
                if shutdown.stop_requested and not (folder / STOP).exists():
                    (folder / STOP).touch()
                    log.info(
                        "Stopping all points after their checkpoint; Ctrl-C again stops at once"
                    )
                time.sleep(POLL)
                points = _report_new(folder, points, total)
        finally:  # a second Ctrl-C
            if engine.poll() is None:
                os.killpg(engine.pid, signal.SIGKILL)
    points = _report_new(folder, points, total)
    if shutdown.stop_requested:
        done = sum(point.status == "done" for point in points)
        raise Interrupted(f"stopped; {done} of {total} points are done")
    if len(points) < total:
        raise KdpError(f"{total - len(points)} points did not run: {_first_log_line(folder / LOG)}")
    return points


def _report_new(folder: Path, known: list[SweepPoint], total: int) -> list[SweepPoint]:
    """All finished points in order; logs a line for each that was not known yet."""
    outcomes = [json.loads(path.read_text()) for path in folder.glob(f"*/{OUTCOME}")]
    points = sorted(map(SweepPoint.from_plain, outcomes), key=lambda point: point.number)
    for point in points:
        if point not in known:
            where = f"point {point.number + 1} of {total}, {' '.join(point.overrides)}"
            log.info(f"{where}: {point.status}, {point.result}".rstrip(", "))
    return points


def _first_log_line(log: Path) -> str:
    lines = (line.strip() for line in log.read_text(errors="replace").splitlines())
    return f"{next(filter(None, lines), 'Hydra stopped early')} (see {log})"
