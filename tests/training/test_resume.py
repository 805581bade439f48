"""A stopped or crashed run resumes to the result of an uninterrupted one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdp.artifacts import load, save
from kdp.errors import Interrupted, KdpError
from kdp.training.job import TrainingJob
from kdp.training.loop import fit
from tests.conftest import same_params
from tests.training.helpers import (
    Hook,
    assert_equal_runs,
    best_at_step_4,
    crash,
    curve_rows,
    press_ctrl_c,
    settings,
    stop_at,
    toy_job,
)


@pytest.mark.parametrize("stopped_at", [0, 3, 4])
def test_a_stopped_run_resumes_to_the_same_result(tmp_path: Path, stopped_at: int) -> None:
    whole = fit(toy_job(tmp_path / "whole"))
    with pytest.raises(Interrupted, match=f"after step {stopped_at + 1};.*--resume"):
        fit(toy_job(tmp_path / "parts", stop_at(stopped_at, press_ctrl_c)))
    resumed = fit(toy_job(tmp_path / "parts"), resume=True)
    assert_equal_runs(whole, resumed)
    assert curve_rows(tmp_path / "parts") == curve_rows(tmp_path / "whole")


@pytest.mark.parametrize("crashed_at", [2, 5, 7])
def test_a_crashed_run_resumes_to_the_same_result(tmp_path: Path, crashed_at: int) -> None:
    whole = fit(toy_job(tmp_path / "whole"))
    with pytest.raises(RuntimeError):
        fit(toy_job(tmp_path / "parts", stop_at(crashed_at, crash)))
    resumed = fit(toy_job(tmp_path / "parts"), resume=True)
    assert_equal_runs(whole, resumed)
    assert curve_rows(tmp_path / "parts") == curve_rows(tmp_path / "whole")


@pytest.mark.parametrize("stop", [press_ctrl_c, crash])
def test_means_over_training_batches_survive_an_interruption(
    tmp_path: Path, stop: Callable[[], None]
) -> None:
    rare = settings(log_every=5, checkpoint_every=2, validate_every=8)
    fit(toy_job(tmp_path / "whole", settings=rare))
    with pytest.raises((Interrupted, RuntimeError)):
        fit(toy_job(tmp_path / "parts", stop_at(3, stop), settings=rare))
    fit(toy_job(tmp_path / "parts", settings=rare), resume=True)
    rows = curve_rows(tmp_path / "parts")
    assert rows == curve_rows(tmp_path / "whole")
    assert [row["step"] for row in rows if "score" in row] == [5, 8]


def test_a_checkpoint_without_means_over_batches_is_resumed(tmp_path: Path) -> None:
    whole = fit(toy_job(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path / "parts", stop_at(3, press_ctrl_c)))
    path = tmp_path / "parts/checkpoint.pth"
    checkpoint = load(path)
    del checkpoint.extra["training"]["running_metrics"]
    save(path, checkpoint)
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts"), resume=True))


def test_ctrl_c_in_the_last_step_finishes_the_run(tmp_path: Path) -> None:
    whole = fit(toy_job(tmp_path / "whole"))
    stopped = fit(toy_job(tmp_path / "stopped", stop_at(7, press_ctrl_c)))
    assert_equal_runs(whole, stopped)


def test_a_finished_run_can_be_extended(tmp_path: Path) -> None:
    short, long = settings(schedule="constant"), settings(schedule="constant", steps=12)
    whole = fit(toy_job(tmp_path / "whole", settings=long))
    fit(toy_job(tmp_path / "parts", settings=short))
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts", settings=long), resume=True))


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path, stop_at(1, lambda: os.kill(os.getpid(), signal.SIGTERM))))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_resuming_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"nothing to resume: .*checkpoint.pth does not exist"):
        fit(toy_job(tmp_path), resume=True)


def test_resuming_with_other_settings_is_rejected(tmp_path: Path) -> None:
    fit(toy_job(tmp_path))
    with pytest.raises(KdpError, match=r"made with other settings \(lr\)"):
        fit(toy_job(tmp_path, signature={"lr": 0.02}), resume=True)


def test_resuming_to_an_earlier_end_is_rejected(tmp_path: Path) -> None:
    fit(toy_job(tmp_path))
    with pytest.raises(KdpError, match="is of step 6, but the run ends at 4"):
        fit(toy_job(tmp_path, settings=settings(steps=4)), resume=True)


@pytest.mark.parametrize("stopped_at", [6, 9])
def test_patience_survives_an_interruption(tmp_path: Path, stopped_at: int) -> None:
    whole = fit(best_at_step_4(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(best_at_step_4(tmp_path / "parts", stop_at(stopped_at, press_ctrl_c)))
    assert_equal_runs(whole, fit(best_at_step_4(tmp_path / "parts"), resume=True))


def test_extra_modules_are_trained_and_resumed(tmp_path: Path) -> None:
    def job_with_extra(folder: Path, at_step: Hook = lambda step: None) -> TrainingJob:
        job = toy_job(folder, at_step)
        extra, plain = nn.Linear(1, 1), job.objective

        def objective(
            model: nn.Module, batch: dict[str, Tensor], step: int
        ) -> tuple[Tensor, dict[str, Tensor]]:
            loss, parts = plain(model, batch, step)
            return loss + (extra(batch["y"]) - 2 * batch["y"]).square().mean(), parts

        job.extra_modules, job.objective = extra, objective
        return job

    whole = job_with_extra(tmp_path / "whole")
    parts = job_with_extra(tmp_path / "parts", stop_at(3, press_ctrl_c))
    start = whole.extra_modules.state_dict()["weight"].clone()
    fit(whole)
    with pytest.raises(Interrupted):
        fit(parts)
    resumed = job_with_extra(tmp_path / "parts")
    fit(resumed, resume=True)
    assert not torch.equal(whole.extra_modules.state_dict()["weight"], start)
    assert same_params(
        dict(whole.extra_modules.state_dict()), dict(resumed.extra_modules.state_dict())
    )
