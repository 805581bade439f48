"""A sweep within the process of a test, in place of one process for each stage of each point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from unittest.mock import patch

from kdp.config.overrides import several_values, split_override
from kdp.stages.sweep import job
from kdp.stages.sweep.job import OUTCOME, SETTINGS, SweepPoint
from tests.in_process import call_kdp


def launch_here(folder: Path, arguments: list[str], total: int) -> list[SweepPoint]:
    """In place of `kdp.stages.sweep.launcher.launch`: the points one after another, here."""
    settings = json.loads((folder / SETTINGS).read_text())
    grid = [_overrides(argument) for argument in arguments]
    points = []
    with patch.object(job, "_kdp", _kdp):
        for number, varied in enumerate(product(*grid)):
            own = folder / str(number)
            own.mkdir()
            job.run_point(own, settings, list(varied), number)
            points.append(SweepPoint.from_plain(json.loads((own / OUTCOME).read_text())))
    assert len(points) == total
    return points


def _overrides(argument: str) -> list[str]:
    argument = argument.lstrip("+")
    key = split_override(argument)[0]
    return [f"{key}={value}" for value in several_values(argument)]


def _kdp(arguments: Sequence[str], output: Path) -> None:
    done = call_kdp(*arguments)
    output.write_text(done.stdout)
    if done.code:
        raise job._Ended("failed", done.line.removeprefix("kdp: "))
