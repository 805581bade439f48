"""Experiment trackers: used where they work, one warning where they do not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import yaml

from kdp.artifacts import load
from kdp.training import trackers
from kdp.training.trackers import Trackers
from tests.models.face_mask_helpers import settings
from tests.runs import ended, spawn_kdp

FAKE = """
import os
from types import SimpleNamespace

def note(what):
    with open(os.environ["NOTES"], "a") as file:
        print(what, file=file)

class Run:
    def log(self, values, step):
        note(f"{step} {sorted(values)}")

    def finish(self):
        note("finished")

def init(project, dir, mode):
    if os.environ["LOGGED_IN"] == "no":
        raise RuntimeError("api_key not configured (no-tty).\\nA second line")
    note(f"{project} {dir} {mode}")
    return Run()

config = SimpleNamespace(update=lambda values, allow_val_change: note(f"seed {values['seed']}"))
"""


ADVICE = "; WANDB_MODE=offline logs to this machine only"


def train_with_wandb(folder: Path, logged_in: str) -> subprocess.CompletedProcess[str]:
    """Two steps of a real training with a fake `wandb` package installed."""
    package = folder / "site" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    about = folder / "site" / "wandb-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 1\n")
    plain = settings(folder, distill=None).model_dump(mode="json")
    plain["train"].update(steps=2, validate_every=2, log_every=1, trackers=["wandb"])
    (folder / "c.yml").write_text(yaml.safe_dump(plain))
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "LOGGED_IN": logged_in, "NOTES": str(folder / "notes")}
    others = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    changed = {**others, **own}
    done = ended(spawn_kdp("train", "-c", str(folder / "c.yml"), env=changed))
    assert done.returncode == 0, done.stderr
    assert load(Path(done.stdout.split()[0])).params
    return done


def test_wandb_receives_settings_metrics_and_finish(tmp_path: Path) -> None:
    done = train_with_wandb(tmp_path, "yes")
    assert "tracked" not in done.stderr
    first, seed, *numbers, end = (tmp_path / "notes").read_text().splitlines()
    assert first == f"kdp {tmp_path / 'runs' / 'tiny_train'} offline"
    assert (seed, end) == ("seed 0", "finished")
    assert [line[0] for line in numbers] == ["1", "2", "2"]
    assert "toy/accuracy" in numbers[-1]


def test_training_continues_without_wandb_if_nobody_is_logged_in(tmp_path: Path) -> None:
    done = train_with_wandb(tmp_path, "no")
    lines = [line for line in done.stderr.splitlines() if "wandb" in line]
    assert lines == [f"wandb tracking did not start: api_key not configured (no-tty){ADVICE}"]
    assert "A second line" not in done.stderr


@pytest.mark.parametrize(("given", "mode"), [({}, "offline"), ({"WANDB_MODE": "online"}, "online")])
def test_wandb_is_offline_unless_the_environment_asks_for_online(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], mode: str
) -> None:
    wandb = MagicMock(return_value=MagicMock())
    monkeypatch.setattr(trackers, "WandBTracker", wandb)
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["wandb"])
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    Trackers(["wandb"], tmp_path, {})
    assert wandb.call_args.kwargs["mode"] == mode


@pytest.mark.parametrize(("method", "failure"), [("log", "stopped"), ("finish", "did not finish")])
def test_a_failing_tracker_is_dropped_with_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[str],
    method: str,
    failure: str,
) -> None:
    tracker = MagicMock()
    getattr(tracker, method).side_effect = OSError("no route to host")
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["wandb"])
    monkeypatch.setitem(trackers._TRACKERS, "wandb", lambda folder: tracker)
    running = Trackers(["wandb"], tmp_path, {})
    running.log({"loss": 1.0}, 1)
    running.finish()
    running.log({"loss": 1.0}, 2)
    assert messages == [f"wandb tracking {failure}: no route to host{ADVICE}"]


def test_a_missing_tracker_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, messages: list[str]
) -> None:
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: [])
    Trackers(["wandb"], tmp_path, {}).log({"loss": 1.0}, 1)
    assert messages == ["wandb is not installed, the run is not tracked: pip install wandb"]
