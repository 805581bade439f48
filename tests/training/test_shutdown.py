"""Signals that ask a process to stop."""

from __future__ import annotations

import os
import pty
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from kdp.errors import Interrupted
from kdp.training import shutdown as module
from kdp.training.loop import fit
from kdp.training.shutdown import (
    SIGNALS,
    StopRequested,
    graceful_shutdown,
    stop_at_once,
    stop_between_layers,
)
from tests.training.helpers import assert_equal_runs, curve_rows, settings, stop_at, toy_job


@pytest.fixture(autouse=True)
def _same_handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_training_stops_after_its_step(tmp_path: Path, number: signal.Signals) -> None:
    whole = fit(toy_job(tmp_path / "whole"))
    with pytest.raises(Interrupted, match=r"after step 4;.*--resume"):
        fit(toy_job(tmp_path / "parts", stop_at(3, lambda: signal.raise_signal(number))))
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts"), resume=True))


@pytest.mark.parametrize("step", [2, 8])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_long_validation_is_abandoned_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.0)
    whole = fit(toy_job(tmp_path / "whole"))
    job = toy_job(tmp_path / "parts")
    validate, calls = job.validate, []

    def interrupted(model: nn.Module) -> dict[str, dict[str, float]]:
        calls.append(1)
        if len(calls) == step // 2:
            signal.raise_signal(number)
        return validate(model)

    job.validate = interrupted
    with pytest.raises(Interrupted, match=f"after step {step}"):
        fit(job)
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts"), resume=True))
    assert curve_rows(tmp_path / "parts") == curve_rows(tmp_path / "whole")


def test_a_validation_may_be_abandoned_twice_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The means over training batches that a checkpoint has brought go into the next one."""
    monkeypatch.setattr(module, "GRACE", 0.0)
    rare = settings(log_every=5)
    whole = fit(toy_job(tmp_path / "whole", settings=rare))
    validate = toy_job(tmp_path).validate

    def interrupted(model: nn.Module) -> dict[str, dict[str, float]]:
        signal.raise_signal(signal.SIGTERM)
        return validate(model)

    for resume in (False, True):
        job = toy_job(tmp_path / "parts", settings=rare, validate=interrupted)
        with pytest.raises(Interrupted, match="after step 2"):
            fit(job, resume=resume)
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts", settings=rare), resume=True))
    assert curve_rows(tmp_path / "parts") == curve_rows(tmp_path / "whole")


def test_a_short_validation_is_finished(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    validate, done = job.validate, []

    def interrupted(model: nn.Module) -> dict[str, dict[str, float]]:
        signal.raise_signal(signal.SIGTERM)
        done.append(validate(model))
        return done[0]

    job.validate = interrupted
    with pytest.raises(Interrupted, match="after step 2"):
        fit(job)
    assert len(done) == 1


def test_data_workers_leave_stopping_to_the_training(tmp_path: Path) -> None:
    """A scheduler signals all processes of a job."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        job = toy_job(tmp_path, stop_at(1, lambda: os.killpg(0, signal.SIGTERM)), workers=1)
        try:
            fit(job)
        except Interrupted:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    resumed = fit(toy_job(tmp_path, settings=settings()), resume=True)
    assert_equal_runs(resumed, fit(toy_job(tmp_path / "whole")))


@pytest.mark.parametrize("number", SIGNALS)
def test_work_that_has_nothing_to_finish_stops_at_once(number: signal.Signals) -> None:
    closed = []

    @contextmanager
    def work() -> Iterator[None]:
        try:
            yield
        finally:
            signal.raise_signal(signal.SIGHUP)  # the second one of a terminal that closes
            closed.append(1)

    with pytest.raises(Interrupted, match="stopped here"), stop_at_once("stopped here"), work():
        signal.raise_signal(number)
    assert closed


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_within_work_that_stops_at_once_waits(number: signal.Signals) -> None:
    with stop_at_once("at once"), graceful_shutdown() as shutdown:
        signal.raise_signal(number)
        assert shutdown.stop_requested


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_at_once("stopped"), graceful_shutdown() as shutdown:
            signal.raise_signal(signal.SIGHUP)
            assert not shutdown.stop_requested
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_ctrl_c_after_a_request_stops_at_once(number: signal.Signals) -> None:
    with graceful_shutdown():
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_network_is_left_between_two_layers(at: int) -> None:
    network, due = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)), []
    network[at].register_forward_hook(lambda *_: due.append(1))
    if at == 2:  # there is no layer after the last one
        with stop_between_layers(network, lambda: bool(due)):
            network(torch.zeros(1, 1))
    else:
        with pytest.raises(StopRequested), stop_between_layers(network, lambda: bool(due)):
            network(torch.zeros(1, 1))
    network(torch.zeros(1, 1))
    assert len(due) == 2


def test_a_training_whose_terminal_is_closed_writes_its_checkpoint(tmp_path: Path) -> None:
    child, terminal = pty.fork()
    if not child:
        os.write(2, b"started")
        code = 1
        try:
            # The terminal sends the signal itself, at some step.
            fit(toy_job(tmp_path, settings=settings(steps=100_000, checkpoint_every=100_000)))
        except Interrupted:
            print("a line after the end", flush=True)
            code = 0
        finally:
            os._exit(code)
    os.read(terminal, 1)
    curves = tmp_path / "curves.jsonl"
    while not (curves.exists() and curves.stat().st_size):
        time.sleep(0.01)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "checkpoint.pth").exists()
