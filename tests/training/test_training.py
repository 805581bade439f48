"""The training loop: what it computes, and that nothing is lost when it is stopped."""

from __future__ import annotations

import csv
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.artifacts import load
from kdp.config import TrainConfig
from kdp.errors import Interrupted, KdpError
from kdp.stages.train.train import train
from kdp.training.curves import Curves
from kdp.training.job import TrainingJob, TrainingResult
from kdp.training.loop import fit
from kdp.training.schedule import learning_rate
from tests.conftest import ROOT
from tests.runs import (
    SHORT,
    complaints,
    config,
    config_file,
    ended,
    run_kdp,
    start_kdp,
    wait_until,
)

Hook = Callable[[int], None]


@pytest.fixture(autouse=True)
def _no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing curves takes longer than these trainings."""
    if "picture" not in request.node.name:
        monkeypatch.setattr("kdp.training.curves.plot_curves", lambda rows, metrics: b"")


class Numbers(Dataset[dict[str, Tensor]]):
    """Random points, numbered."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(number))
        return {"x": x, "y": x.sum(dim=0, keepdim=True)}


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**SHORT, "lr": 0.01, "steps": 8, **changes})


def toy(folder: Path, at_step: Hook = lambda step: None, **changes: Any) -> TrainingJob:
    """A small network with dropout and batch statistics; `at_step` runs inside every step."""
    torch.manual_seed(0)
    layers = (nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def objective(
        model: nn.Module, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        at_step(step)
        loss = (model(batch["x"]) - batch["y"]).square().mean()
        return loss, {"task": loss}

    def validate(model: nn.Module) -> dict[str, dict[str, float]]:
        model.eval()
        sample = torch.stack([Numbers(8)[i]["x"] for i in range(8)])
        with torch.no_grad():
            error = (model(sample).flatten() - sample.sum(dim=1)).square().mean()
        return {"toy": {"score": -float(error)}}

    given: dict[str, Any] = {
        "model": nn.Sequential(*layers),
        "data": Numbers,
        "objective": objective,
        "validate": validate,
        "primary_metric": "score",
        "settings": settings(),
        "folder": folder,
        "device": "cpu",
        "signature": {"lr": 0.01},
    }
    return TrainingJob(**{**given, **changes})


def stop_at(wanted: int, how: Callable[[], None]) -> Hook:
    def at_step(step: int) -> None:
        if step == wanted:
            how()

    return at_step


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def crash() -> None:
    raise RuntimeError("the machine went down")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The curves without the times."""
    lines = [json.loads(line) for line in (folder / "curves.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines]


def assert_equal_runs(a: TrainingResult, b: TrainingResult) -> None:
    assert same(a.last, b.last)
    assert same(a.best, b.best)
    assert (a.last_metrics, a.best_metrics) == (b.last_metrics, b.best_metrics)
    assert a.best_step == b.best_step


@pytest.mark.parametrize("stopped_at", [0, 3, 4])
def test_a_stopped_run_resumes_to_the_same_result(tmp_path: Path, stopped_at: int) -> None:
    whole = fit(toy(tmp_path / "whole"))
    with pytest.raises(Interrupted, match=f"after step {stopped_at + 1};.*--resume"):
        fit(toy(tmp_path / "parts", stop_at(stopped_at, press_ctrl_c)))
    resumed = fit(toy(tmp_path / "parts"), resume=True)
    assert_equal_runs(whole, resumed)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


@pytest.mark.parametrize("crashed_at", [2, 5, 7])
def test_a_crashed_run_resumes_to_the_same_result(tmp_path: Path, crashed_at: int) -> None:
    whole = fit(toy(tmp_path / "whole"))
    with pytest.raises(RuntimeError):
        fit(toy(tmp_path / "parts", stop_at(crashed_at, crash)))
    resumed = fit(toy(tmp_path / "parts"), resume=True)
    assert_equal_runs(whole, resumed)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_ctrl_c_in_the_last_step_finishes_the_run(tmp_path: Path) -> None:
    whole = fit(toy(tmp_path / "whole"))
    stopped = fit(toy(tmp_path / "stopped", stop_at(7, press_ctrl_c)))
    assert_equal_runs(whole, stopped)


def test_a_run_that_was_finished_can_be_made_longer(tmp_path: Path) -> None:
    short, long = settings(schedule="constant"), settings(schedule="constant", steps=12)
    whole = fit(toy(tmp_path / "whole", settings=long))
    fit(toy(tmp_path / "parts", settings=short))
    assert_equal_runs(whole, fit(toy(tmp_path / "parts", settings=long), resume=True))


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        fit(toy(tmp_path, stop_at(1, lambda: os.kill(os.getpid(), signal.SIGTERM))))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_run_needs_its_checkpoint_to_resume(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match=r"nothing to resume: .*checkpoint.pth does not exist"):
        fit(toy(tmp_path), resume=True)


def test_a_run_does_not_go_on_with_other_settings(tmp_path: Path) -> None:
    fit(toy(tmp_path))
    with pytest.raises(KdpError, match=r"made with other settings \(lr\)"):
        fit(toy(tmp_path, signature={"lr": 0.02}), resume=True)


def test_a_run_is_not_resumed_to_an_earlier_end(tmp_path: Path) -> None:
    fit(toy(tmp_path))
    with pytest.raises(KdpError, match="is of step 6, but the run ends at 4"):
        fit(toy(tmp_path, settings=settings(steps=4)), resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "cuda:0"}, "CUDA_VISIBLE_DEVICES"),
        ({"settings": settings(mixed_precision="fp16")}, "fp16 needs a GPU"),
    ],
)
def test_what_a_device_does_not_do_is_said(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(KdpError, match=said):
        fit(toy(tmp_path, **changes))


def test_curves_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KdpError, match=r"cannot write .*curves\.jsonl"):
        fit(toy(tmp_path / "file" / "run"))


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    scores, seen = iter([1.0, 3.0, 2.0, 3.0]), []

    def validate(model: nn.Module) -> dict[str, dict[str, float]]:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"first": {"score": next(scores)}, "second": {"score": 9.0}}

    result = fit(toy(tmp_path, validate=validate))
    assert result.best_step == 4
    assert same(result.best, seen[1])
    assert same(result.last, seen[3])
    assert result.best_metrics["first"] == {"score": 3.0}
    assert not same(seen[1], seen[3])


def once_good(folder: Path, at_step: Hook = lambda step: None, **changes: Any) -> TrainingJob:
    """A toy whose fourth step is its best."""
    job = toy(folder, at_step, settings=settings(steps=20, patience=6), **changes)
    job.validate = lambda model: {"toy": {"score": -abs(4.0 - model[1].num_batches_tracked.item())}}
    return job


def test_patience_ends_a_training_that_gets_no_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fit(once_good(tmp_path))
    assert result.best_step == 4
    assert rows(tmp_path)[-1]["step"] == 10
    assert "Early stopping: score has not improved since step 4" in capsys.readouterr().err


@pytest.mark.parametrize("stopped_at", [6, 9])
def test_patience_outlives_an_interruption(tmp_path: Path, stopped_at: int) -> None:
    whole = fit(once_good(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(once_good(tmp_path / "parts", stop_at(stopped_at, press_ctrl_c)))
    assert_equal_runs(whole, fit(once_good(tmp_path / "parts"), resume=True))


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    history: list[Tensor] = []
    job = toy(tmp_path, settings=settings(ema_decay=0.3))
    job.after_step = lambda model, step: (
        history.append(model[0].weight.detach().clone()) if model is job.model else None
    )
    result = fit(job)
    average = history[0]
    for count, weight in enumerate(history[1:], start=1):
        keep = min(0.3, (1 + count) / (10 + count))
        average = keep * average + (1 - keep) * weight
    assert torch.allclose(result.last["0.weight"], average, atol=1e-7)
    assert not torch.allclose(result.last["0.weight"], history[-1], atol=1e-4)


def test_without_an_average_the_weights_are_the_last_ones(tmp_path: Path) -> None:
    job = toy(tmp_path, settings=settings(ema_decay=0.0))
    assert same(fit(job).last, dict(job.model.state_dict()))


def test_modules_beside_the_network_learn_and_resume(tmp_path: Path) -> None:
    def job(folder: Path, at_step: Hook = lambda step: None) -> TrainingJob:
        made = toy(folder, at_step)
        beside, plain = nn.Linear(1, 1), made.objective

        def objective(
            model: nn.Module, batch: dict[str, Tensor], step: int
        ) -> tuple[Tensor, dict[str, Tensor]]:
            loss, parts = plain(model, batch, step)
            return loss + (beside(batch["y"]) - 2 * batch["y"]).square().mean(), parts

        made.extra_modules, made.objective = beside, objective
        return made

    whole, parts = job(tmp_path / "whole"), job(tmp_path / "parts", stop_at(3, press_ctrl_c))
    start = whole.extra_modules.state_dict()["weight"].clone()
    fit(whole)
    with pytest.raises(Interrupted):
        fit(parts)
    resumed = job(tmp_path / "parts")
    fit(resumed, resume=True)
    assert not torch.equal(whole.extra_modules.state_dict()["weight"], start)
    assert same(dict(whole.extra_modules.state_dict()), dict(resumed.extra_modules.state_dict()))


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    def poison(step: int) -> None:
        if step == 5:
            job.model[0].weight.data.fill_(float("nan"))  # type: ignore[index]

    job = toy(tmp_path, poison)
    with pytest.raises(KdpError, match=r"the loss is nan at step 5.*learning rate"):
        fit(job)
    assert load(tmp_path / "checkpoint.pth").extra["training"]["step"] == 4


def test_spoilt_weights_never_reach_the_checkpoint(tmp_path: Path) -> None:
    def spoil(step: int) -> None:
        if step == 3:
            job.model[0].weight.register_hook(lambda grad: grad * float("nan"))  # type: ignore[index]

    job = toy(tmp_path, spoil)
    with pytest.raises(KdpError, match=r"0\.weight are no longer finite"):
        fit(job)
    assert load(tmp_path / "checkpoint.pth").extra["training"]["step"] == 2


def test_every_step_learns_at_the_rate_of_the_schedule(tmp_path: Path) -> None:
    changes = {"steps": 12, "warmup_steps": 2, "schedule": "trapezoid", "decay_steps": 4}
    wanted = settings(**changes)
    fit(toy(tmp_path, settings=wanted))
    logged = [row["lr"] for row in rows(tmp_path) if "loss" in row]
    tail = [0.01 * part for part in (1, 0.75, 0.5, 0.25)]
    assert logged == pytest.approx([0.005, 0.01] + [0.01] * 6 + tail)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"schedule": "cosine"}, {0: 1.0, 25: 0.853553, 50: 0.5, 75: 0.146447}),
        ({"schedule": "cosine", "warmup_steps": 20}, {0: 0.05, 19: 1.0, 20: 1.0, 60: 0.5}),
        (
            {"schedule": "multistep", "milestones": [30, 60]},
            {29: 1.0, 30: 0.5, 59: 0.5, 60: 0.25, 99: 0.25},
        ),
        ({"schedule": "trapezoid"}, {0: 1.0, 80: 1.0, 90: 0.5, 99: 0.05}),
    ],
)
def test_learning_rate_schedules(changes: dict[str, Any], expected: dict[int, float]) -> None:
    chosen = TrainConfig.model_validate({"steps": 100, "lr": 1.0, **changes})
    found = {step: learning_rate(chosen, step) for step in expected}
    assert found == pytest.approx(expected, abs=1e-6)


def test_curves_are_written_as_lines_table_and_picture(tmp_path: Path) -> None:
    fit(toy(tmp_path))
    steps = [row["step"] for row in rows(tmp_path) if "loss" in row]
    assert steps == list(range(1, 9))
    with (tmp_path / "curves.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows(tmp_path)) == 12
    assert {"step", "lr", "loss", "task", "toy/score"} <= table[0].keys()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_forget_the_line_a_killed_run_left_half_written(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for step in (1, 2, 3):
        curves.add({"step": step, "loss": 1.0})
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in Curves(tmp_path, done=2).rows] == [1, 2]
    assert [row["step"] for row in Curves(tmp_path).rows] == []


def test_train_resumes_to_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdp.tasks.super_resolution.task import SuperResolution

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = train(config(tmp_path / "whole", distill=None))
    plain, calls = SuperResolution.loss, []

    def loss(self: SuperResolution, output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 4:
            press_ctrl_c()
        return plain(self, output, batch)

    monkeypatch.setattr(SuperResolution, "loss", loss)
    with pytest.raises(Interrupted):
        train(config(tmp_path / "parts", distill=None))
    parts = train(config(tmp_path / "parts", distill=None), resume=True)
    for key in ("best", "last"):
        a, b = load(whole[key]), load(parts[key])
        assert same(a.params, b.params)
        assert a.record.metrics == b.record.metrics
    assert rows(tmp_path / "parts/runs/tiny_train") == rows(tmp_path / "whole/runs/tiny_train")


def test_train_in_two_processes_writes_one_result(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, "-m", "kdp", "train", "-c", str(config_file(tmp_path, distill=None))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    artifact = load(tmp_path / "weights/tiny.pth")
    assert artifact.params
    assert artifact.record.metrics["small"]["psnr"] > 0
    steps = [row["step"] for row in rows(tmp_path / "runs/tiny_train") if "loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_ctrl_c_leaves_a_checkpoint_and_one_line(tmp_path: Path) -> None:
    path = config_file(
        tmp_path, distill=None, train={**SHORT, "steps": 5000, "checkpoint_every": 5000}
    )
    folder = tmp_path / "runs/tiny_train"
    process = start_kdp("train", "-c", str(path))
    wait_until(lambda: (folder / "curves.csv").exists(), process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    (line,) = complaints(stderr)
    stopped = re.fullmatch(r"kdp: stopped after step (\d+); go on with --resume", line)
    assert stopped
    step = load(folder / "checkpoint.pth").extra["training"]["step"]
    assert step == int(stopped[1])
    assert not (tmp_path / "weights/tiny.pth").exists()


def test_a_nan_loss_exits_with_two_and_overwrites_nothing(tmp_path: Path) -> None:
    old = tmp_path / "weights/tiny.pth"
    old.parent.mkdir()
    old.write_bytes(b"the weights of yesterday")
    changes = ("--overwrite", "train.lr=1e30", "train.clip_norm=null", "train.checkpoint_every=100")
    done = run_kdp("train", "-c", str(config_file(tmp_path, distill=None)), *changes)
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert re.search(r"the loss is (nan|inf) at step 1: lower the learning rate", line)
    assert old.read_bytes() == b"the weights of yesterday"
    assert sorted(path.name for path in old.parent.iterdir()) == ["tiny.pth"]


def test_a_second_run_of_the_same_file_is_refused(tmp_path: Path) -> None:
    path = config_file(tmp_path, distill=None, train={**SHORT, "steps": 5000})
    curves = tmp_path / "runs/tiny_train/curves.jsonl"
    first = start_kdp("train", "-c", str(path))
    wait_until(lambda: curves.exists() and curves.stat().st_size > 0, first)
    second = run_kdp("train", "-c", str(path))
    assert second.returncode == 2
    (line,) = complaints(second.stderr)
    assert "another run is writing" in line
    assert "tiny.pth" in line
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=120)
    assert first.returncode == 130
    assert rows(curves.parent)[0]["step"] == 1, "the second run must not touch the first's curves"


def test_nothing_is_learnt_before_all_data_are_there(tmp_path: Path) -> None:
    gone = {"later": {"kind": "hr_only", "hr": str(tmp_path / "gone")}}
    with pytest.raises(KdpError, match="gone does not exist"):
        train(config(tmp_path, distill=None, evaluation=gone))
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_leaves_the_old_files(tmp_path: Path) -> None:
    train(config(tmp_path, distill=None))
    kept = [*(tmp_path / "weights").glob("*.pth"), tmp_path / "runs/tiny_train/checkpoint.pth"]
    before = {path: path.read_bytes() for path in kept}
    limit = min(len(content) for content in before.values()) - 1000
    process = start_kdp(
        "train",
        "-c",
        str(config_file(tmp_path, distill=None)),
        "--resume",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    done = ended(process)
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert re.search(r"cannot write .*: no space left; nothing was changed", line)
    assert {path: path.read_bytes() for path in kept} == before
    assert not [path for folder in before for path in folder.parent.glob(".tiny*")]


def test_the_best_weights_are_not_older_than_the_job_allows(tmp_path: Path) -> None:
    scores = iter([9.0, 1.0, 3.0, 2.0])

    def validate(model: nn.Module) -> dict[str, dict[str, float]]:
        return {"first": {"score": next(scores)}}

    job = toy(tmp_path, validate=validate)
    job.best_from_step = 3
    result = fit(job)
    assert result.best_step > 2
    assert result.best_metrics == {"first": {"score": 3.0}}
