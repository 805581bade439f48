"""`kdp train` as a process: interrupted, in several processes, out of disk space."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from kdp.artifacts import load
from kdp.errors import Interrupted, KdpError
from kdp.stages.train.train import train
from tests.conftest import ROOT, same_params
from tests.runs import (
    SHORT,
    complaints,
    config,
    config_file,
    run_kdp,
    start_kdp,
    wait_until,
)
from tests.training.helpers import curve_rows, press_ctrl_c


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
        assert same_params(a.params, b.params)
        assert a.record.metrics == b.record.metrics
    assert curve_rows(tmp_path / "parts/runs/tiny_train") == curve_rows(
        tmp_path / "whole/runs/tiny_train"
    )


def test_train_in_two_processes_writes_one_result(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, "-m", "kdp", "train", "-c", str(config_file(tmp_path, distill=None))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    artifact = load(tmp_path / "weights/tiny.pth")
    assert artifact.params
    assert artifact.record.metrics["small"]["psnr"] > 0
    steps = [row["step"] for row in curve_rows(tmp_path / "runs/tiny_train") if "loss" in row]
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
    stopped = re.fullmatch(r"kdp: stopped after step (\d+); continue with --resume", line)
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


def test_a_second_run_of_the_same_output_is_rejected(tmp_path: Path) -> None:
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
    assert curve_rows(curves.parent)[0]["step"] == 1, (
        "the second run must not touch the first's curves"
    )


def test_missing_evaluation_data_are_an_error_before_the_first_step(tmp_path: Path) -> None:
    gone = {"later": {"kind": "hr_only", "hr": str(tmp_path / "gone")}}
    with pytest.raises(KdpError, match="gone does not exist"):
        train(config(tmp_path, distill=None, evaluation=gone))
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_leaves_the_old_files_untouched(tmp_path: Path) -> None:
    train(config(tmp_path, distill=None))
    kept = [*(tmp_path / "weights").glob("*.pth"), tmp_path / "runs/tiny_train/checkpoint.pth"]
    before = {path: path.read_bytes() for path in kept}
    limit = min(len(content) for content in before.values()) - 1000
    command = ("train", "-c", str(config_file(tmp_path, distill=None)), "--resume")
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    done = run_kdp(*command, before=full)
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert re.search(r"cannot write .*: no space left; nothing was changed", line)
    assert {path: path.read_bytes() for path in kept} == before
    assert not [path for folder in before for path in folder.parent.glob(".tiny*")]
