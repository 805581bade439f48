"""`kdp prune` and `kdp recover` measure what the cut costs and what recovery gives back."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import load
from kdp.errors import Interrupted
from kdp.models.loading import load_network
from kdp.stages.prune.prune import prune
from kdp.stages.prune.recover import recover
from kdp.tasks import task_for
from tests.in_process import call_kdp
from tests.runs import config, config_file
from tests.runs import prune as write_teacher
from tests.stages.test_recover import RECOVER, SETTINGS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a teacher."""
    write_teacher(tmp_path)
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    return tmp_path


def measured(path: Path, settings: Any) -> dict[str, Any]:
    model, arch, _ = load_network(path)
    return task_for(arch, settings).evaluate(model)


def test_the_record_has_the_quality_of_every_state(folder: Path) -> None:
    plain = config(folder, **SETTINGS)
    cut = measured(prune(plain).pruned, plain)
    settings = config(folder, **SETTINGS, recover=RECOVER)
    done = prune(settings, evaluate=True)
    metrics = load(done.pruned).record.metrics
    states = {"unpruned": measured(folder / "teacher.pth", settings), "as cut": cut}
    assert metrics["quality"] == {**states, "recovered": measured(done.pruned, settings)}
    assert metrics["small"] == metrics["quality"]["recovered"]["small"]


def test_recovery_later_measures_the_same_states(folder: Path) -> None:
    at_once = prune(config(folder, **SETTINGS, recover=RECOVER), evaluate=True)
    prune(config(folder, **SETTINGS))
    later = recover(config(folder, **SETTINGS, recover=RECOVER), evaluate=True)
    assert later.reached.quality == at_once.quality


def test_a_network_that_was_not_measured_has_no_quality_of_another(folder: Path) -> None:
    prune(config(folder, **SETTINGS), evaluate=True)
    done = recover(config(folder, **SETTINGS, recover=RECOVER))
    assert set(load(done.path).record.metrics) == {"recovery"}


@pytest.mark.parametrize("stage", ["prune", "recover"])
def test_the_command_prints_them_unless_told_otherwise(folder: Path, stage: str) -> None:
    file = config_file(folder, **SETTINGS, recover=RECOVER if stage == "recover" else None)
    if stage == "recover":
        prune(config(folder, **SETTINGS))
    printed = call_kdp(stage, "--config", file).stdout
    lines = [line.split() for line in printed.splitlines()]
    states = ["unpruned", "as", "cut", *(["recovered"] if stage == "recover" else [])]
    assert states in lines
    (row,) = [line for line in lines if line[:2] == ["small", "psnr"]]
    assert all(5 < float(cell) < 60 for cell in row[2:])
    assert "quality" not in call_kdp(stage, "--config", file, "--no-evaluate").stdout


def test_an_interrupted_evaluation_keeps_the_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("kdp.tasks.super_resolution.task.SuperResolution.evaluate_all", stop)
    with pytest.raises(Interrupted, match="importance of units is saved"):
        prune(config(folder, **SETTINGS), evaluate=True)
    written = {path.name for path in (folder / "weights").iterdir() if path.suffix == ".pth"}
    assert written == {"tiny_scores_magnitude.pth"}
