"""Data that cannot be used end a training with a checkpoint of its last finished step."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from kdp.artifacts import load
from kdp.config import Config
from kdp.errors import KdpError
from kdp.stages.prune.progressive import prune_in_rounds
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.training import loop
from kdp.training.loop import fit
from tests import runs
from tests.runs import SHORT
from tests.stages import test_rounds
from tests.training.helpers import assert_equal_runs, curve_rows, toy_job

RARE = {**SHORT, "checkpoint_every": 100, "validate_every": 100}


class Faulty(Dataset[Any]):
    """A data set with a fault at one number."""

    def __init__(self, samples: Any, number: int, fault: Callable[[Any], Any]) -> None:
        self.samples, self.number, self.fault = samples, number, fault

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Any:
        sample = self.samples[number]
        return self.fault(sample) if number == self.number else sample


def unreadable(sample: Any) -> Any:
    raise KdpError("cannot read the image a.png: its end is missing")


def gone(sample: Any) -> Any:
    return Path("gone.png").read_bytes()


def not_a_number(sample: dict[str, Any]) -> dict[str, Any]:
    key = next(key for key, value in sample.items() if value.is_floating_point())
    return {**sample, key: torch.full_like(sample[key], float("nan"))}


FAULTS = {
    unreadable: "cannot read the image a.png",
    gone: "cannot read a training sample: .*gone.png",
    not_a_number: "hold NaN or infinity",
}


def break_data(
    patch: pytest.MonkeyPatch, step: int, fault: Callable[[Any], Any], of_fit: int = 1
) -> None:
    """Let the last sample of a step be faulty, in the n-th training from now on."""
    loader, calls = loop.batch_loader, []

    def broken(samples: Any, size: int, workers: int) -> Any:
        calls.append(1)
        if len(calls) == of_fit:
            samples = Faulty(samples, size * (step + 1) - 1, fault)
        return loader(samples, size, workers)

    patch.setattr(loop, "batch_loader", broken)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_training_resumes_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], Any]
) -> None:
    whole = fit(toy_job(tmp_path / "whole"))
    break_data(monkeypatch, 3, fault)  # the schedule writes checkpoints of steps 2 and 4
    with pytest.raises(KdpError, match=rf"{FAULTS[fault]}.*continue after step 3 with --resume"):
        fit(toy_job(tmp_path / "parts"))
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts"), resume=True))
    assert curve_rows(tmp_path / "parts") == curve_rows(tmp_path / "whole")


@pytest.mark.parametrize("step", [2, 8])
def test_a_validation_that_cannot_read_its_data_is_repeated(tmp_path: Path, step: int) -> None:
    whole, job = fit(toy_job(tmp_path / "whole")), toy_job(tmp_path / "parts")
    validate, calls = job.validate, []

    def faulty(model: nn.Module) -> dict[str, dict[str, float]]:
        calls.append(1)
        return unreadable(model) if len(calls) == step // 2 else validate(model)

    job.validate = faulty
    with pytest.raises(KdpError, match=f"a.png.*continue after step {step} with --resume"):
        fit(job)
    assert_equal_runs(whole, fit(toy_job(tmp_path / "parts"), resume=True))
    assert curve_rows(tmp_path / "parts") == curve_rows(tmp_path / "whole")


def test_nothing_is_left_where_no_step_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_data(monkeypatch, 0, unreadable)
    with pytest.raises(KdpError, match=r"its end is missing$"):
        fit(toy_job(tmp_path))
    assert not (tmp_path / "checkpoint.pth").exists()


def trained(folder: Path) -> Config:
    return runs.config(folder, train=RARE, distill=None)


def finetuned(folder: Path) -> Config:
    runs.prune(folder)
    return runs.config(folder, finetune=RARE, distill=None)


def in_rounds(folder: Path) -> Config:
    return test_rounds.config(folder, finetune={**RARE, "batch_size": 8})


@pytest.mark.parametrize(
    ("stage", "settings", "of_fit"),
    [(train, trained, 1), (finetune, finetuned, 1), (prune_in_rounds, in_rounds, 2)],
    ids=["train", "finetune", "second round"],
)
def test_stages_resume_after_the_last_finished_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: Callable[..., object],
    settings: Callable[[Path], Config],
    of_fit: int,
) -> None:
    config = settings(tmp_path)
    with monkeypatch.context() as patch:
        break_data(patch, 1, not_a_number, of_fit)
        with pytest.raises(KdpError, match=r"hold NaN .*continue after step 1 with --resume"):
            stage(config)
    (checkpoint,) = tmp_path.rglob("checkpoint.pth")
    assert load(checkpoint).extra["training"]["step"] == 1
    stage(config, resume=True)
    (curves,) = checkpoint.parent.glob("curves.jsonl")
    steps = [int(n) for n in re.findall(r'"step": (\d+).*"loss"', curves.read_text())]
    assert steps == sorted(set(steps))
