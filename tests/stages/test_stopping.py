"""SIGINT, SIGTERM and SIGHUP stop every stage where it can go on, or leave nothing half done."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdp.artifacts import load
from kdp.cli import app
from kdp.errors import Interrupted
from kdp.pruning.groups import Masks
from kdp.pruning.replay import Replay
from kdp.stages.prune import progressive
from kdp.stages.prune.progressive import prune_in_rounds
from kdp.stages.prune.prune import prune
from kdp.stages.prune.round import Round
from kdp.stages.train import cache_targets as targets_module
from kdp.stages.train.cache_targets import cache_targets
from kdp.training import shutdown
from kdp.training.shutdown import SIGNALS
from tests import runs
from tests.distillation.helpers import student_config
from tests.runs import config
from tests.stages import test_rounds as rounds

PRUNE: dict[str, Any] = {
    "prune": {"calibration": {"patches": 2, "patch_size": 10}},
    "mac_constraint": 0.8,
    "measure": {"input_size": [16, 16]},
}
every_signal = pytest.mark.parametrize("number", SIGNALS)


@pytest.fixture(autouse=True)
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was begun is finished after a request to stop."""
    monkeypatch.setattr(shutdown, "GRACE", 0.0)


def on_call(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int, number: signal.Signals
) -> list[int]:
    """Send a signal in one call of a function; returns the calls."""
    plain, calls = getattr(place, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(number)
        return plain(*arguments, **options)

    monkeypatch.setattr(place, name, counted)
    return calls


def hidden(folder: Path) -> list[Path]:
    """Temporary files and locks."""
    return [path for path in folder.rglob(".*") if path.name != ".kdp"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Masks:
    """The masks of a search that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    runs.prune(folder)
    return prune(config(folder, **PRUNE)).plan.masks


@every_signal
def test_measuring_importance_stops_within_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Masks, number: signal.Signals
) -> None:
    runs.prune(tmp_path)
    settings = config(tmp_path, **PRUNE)
    with monkeypatch.context() as patch:
        on_call(patch, Replay, "without", 3, number)
        with pytest.raises(Interrupted, match=r"stopped in .*--resume"):
            prune(settings)
    assert len(load(tmp_path / "weights/tiny_scores_optin.pth").extra["parts"]) == 2
    resumed = prune(settings, resume=True).plan.masks
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert not hidden(tmp_path)


@every_signal
def test_caching_targets_stops_within_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    settings = student_config(tmp_path, target_cache=str(tmp_path / "targets"))
    with monkeypatch.context() as patch:
        # The first call only tells how large the targets are.
        calls = on_call(patch, targets_module, "default_collate", 3, number)
        with pytest.raises(Interrupted, match="stopped after 0 samples"):
            cache_targets(settings)
    assert len(calls) == 3
    assert not list((tmp_path / "targets").glob("*.pth"))
    assert cache_targets(settings).samples == 12
    assert not hidden(tmp_path)


@every_signal
def test_rounds_stop_between_their_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    on_call(monkeypatch, progressive, "measure", 1, number)
    with pytest.raises(Interrupted, match="--resume"):
        prune_in_rounds(rounds.config(tmp_path))
    assert not hidden(tmp_path)


def test_rounds_that_were_stopped_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        on_call(patch, Round, "_row", 2, signal.SIGHUP)
        with pytest.raises(Interrupted, match="--resume"):
            prune_in_rounds(rounds.config(tmp_path))
    prune_in_rounds(rounds.config(tmp_path), resume=True)
    assert not hidden(tmp_path)


def stopped(number: signal.Signals, *arguments: object) -> str:
    """Run a command whose network receives a signal in its second pass; its last line."""
    passes: list[int] = []

    def forward(*_: object) -> None:
        passes.append(1)
        if len(passes) == 2:
            signal.raise_signal(number)

    handle = nn.modules.module.register_module_forward_pre_hook(forward)
    try:
        with pytest.raises(Interrupted) as error:
            app([str(argument) for argument in arguments], standalone_mode=False)
    finally:
        handle.remove()
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("export", signal.SIGTERM),
        ("compare", signal.SIGHUP),
        ("evaluate", signal.SIGINT),
        ("infer", signal.SIGTERM),
        ("rebuild", signal.SIGHUP),
    ],
)
def test_other_commands_leave_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, name: str
) -> None:
    runs.prune(tmp_path)
    file = runs.config_file(tmp_path, **PRUNE)
    small, target = tmp_path / "teacher.pth", tmp_path / "out"
    arguments: dict[str, Sequence[object]] = {
        "export": (small, "--size", 16, 16, "-o", target / "a.onnx"),
        "compare": (small, "-c", file, "-o", target / "a.md"),
        "evaluate": (small, "-c", file, "-o", target / "a.md"),
        "infer": (small, tmp_path / "images", "-o", target),
        "rebuild": ("-c", file, "-o", target / "a.pth"),
    }
    monkeypatch.chdir(tmp_path)
    line = stopped(number, name, *arguments[name])
    assert line == "interrupted" or line.startswith("stopped")
    assert not hidden(tmp_path)
    written = [path for path in target.rglob("*") if path.is_file()] if target.exists() else []
    assert not written
