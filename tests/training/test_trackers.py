"""Experiment trackers: used where they work, one line where they do not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import load
from kdp.config import Config
from kdp.stages.experiments.list import list_experiments
from kdp.stages.train.train import train
from kdp.training import trackers
from kdp.training.job import TrackedRun
from kdp.training.trackers import Trackers
from tests.models.face_mask_helpers import settings
from tests.wandb_fake import FakeRun, install_wandb

ADVICE = "; WANDB_MODE=offline logs to this machine only"


def tracked(folder: Path, **changes: Any) -> Config:
    """Two steps of a training that W&B tracks."""
    config = settings(folder, distill=None, **changes)
    assert config.train
    lengths = {"steps": 2, "validate_every": 2, "log_every": 1, "trackers": ["wandb"]}
    return config.model_copy(update={"train": config.train.model_copy(update=lengths)})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    return install_wandb(tmp_path, monkeypatch)


def test_wandb_receives_settings_metrics_and_finish(tmp_path: Path, runs: list[FakeRun]) -> None:
    config = tracked(tmp_path)
    train(config)
    (run,) = runs
    assert run.started["project"] == "kdp"
    assert run.started["dir"] == str(tmp_path / "runs" / "tiny_train")
    assert run.started["mode"] == "offline"
    assert run.started["config"] == config.plain()
    assert run.started["config"]["train"]["lr"] == 0.001
    assert run.started["config"]["model"]["args"]["channels"] == [4, 6, 8]
    assert [step for step, _ in run.logged] == [0, 1, 2, 2]
    assert run.finished


def test_wandb_shows_costs_and_accuracy(tmp_path: Path, runs: list[FakeRun]) -> None:
    train(tracked(tmp_path))
    shown = runs[0].summary
    costs = ("parameters", "macs", "sparsity", "round", "bytes_int8")
    assert [shown[name] for name in costs] == [828, 193552, 0, 0, 828]
    assert {"loss", "accuracy", "toy/loss", "toy/accuracy"} <= shown.keys()


def test_the_run_is_named_as_its_experiment(tmp_path: Path, runs: list[FakeRun]) -> None:
    train(tracked(tmp_path, experiments={"folder": str(tmp_path / "experiments")}))
    (row,) = list_experiments(tmp_path / "experiments").rows
    assert runs[0].started["name"] == row["exp_id"]


def test_training_continues_if_nobody_is_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    fault = RuntimeError("api_key not configured (no-tty).\nA second line")
    install_wandb(tmp_path, monkeypatch, fault)
    assert load(train(tracked(tmp_path))["best"]).params
    lines = [line for line in messages if "wandb" in line]
    assert lines == [f"wandb tracking did not start: api_key not configured (no-tty){ADVICE}"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"mode": "offline", "silent": True}),
        ({"WANDB_MODE": "online"}, {"mode": "online", "silent": False}),
        ({"WANDB_MODE": "disabled"}, {"mode": "disabled", "silent": True}),
        ({"WANDB_DIR": "elsewhere"}, {"dir": "elsewhere"}),
    ],
)
def test_the_environment_decides_where_wandb_logs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[FakeRun],
    given: dict[str, str],
    expected: dict[str, Any],
) -> None:
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    Trackers(["wandb"], tmp_path, TrackedRun())
    started = runs[0].started
    assert {key: {**started, **started["settings"]}[key] for key in expected} == expected


def test_wandb_caches_in_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[FakeRun]
) -> None:
    caches: list[str] = []
    import wandb

    start = wandb.init
    monkeypatch.setattr(
        wandb, "init", lambda **own: caches.append(os.environ["WANDB_CACHE_DIR"]) or start(**own)
    )
    Trackers(["wandb"], tmp_path, TrackedRun())
    assert caches == [str(tmp_path)]  # it makes a folder `wandb` there
    assert "WANDB_CACHE_DIR" not in os.environ


class _Failing:
    """A tracker whose method raises."""

    def __init__(self, method: str) -> None:
        self.method = method

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._raise("log")

    def finish(self) -> None:
        self._raise("finish")

    def _raise(self, method: str) -> None:
        if method == self.method:
            raise OSError("no route to host")


@pytest.mark.parametrize(("method", "failure"), [("log", "stopped"), ("finish", "did not finish")])
def test_a_failing_tracker_is_dropped_with_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runs: list[FakeRun],
    messages: list[str],
    method: str,
    failure: str,
) -> None:
    monkeypatch.setitem(trackers._TRACKERS, "wandb", lambda folder, run: _Failing(method))
    running = Trackers(["wandb"], tmp_path, TrackedRun())
    running.log({"loss": 1.0}, 1)
    running.finish()
    running.log({"loss": 1.0}, 2)
    assert messages == [f"wandb tracking {failure}: no route to host{ADVICE}"]


@pytest.mark.parametrize("package", ["wandb", "tensorboard"])
def test_a_missing_tracker_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str], package: str
) -> None:
    monkeypatch.setattr(trackers, "_is_installed", lambda name: False)
    for _ in range(3):  # as the rounds of one pruning do
        Trackers([package], tmp_path, TrackedRun()).log({"loss": 1.0}, 1)
    assert messages == [
        f"{package} is not installed, so it does not track this: pip install {package}"
    ]


def test_a_folder_of_offline_runs_is_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        trackers.metadata, "version", _version_without_wandb(trackers.metadata.version)
    )
    Trackers(["wandb"], tmp_path, TrackedRun())
    assert messages == ["wandb is not installed, so it does not track this: pip install wandb"]


def _version_without_wandb(version: Any) -> Any:
    def find(name: str) -> str:
        if name == "wandb":
            raise trackers.metadata.PackageNotFoundError(name)
        return version(name)

    return find
