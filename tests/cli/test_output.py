"""What a command prints: flags in any position, plain text in pipes, one line for an error."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kdp import progress as module
from kdp.cli import app, main
from kdp.log import log, set_up_logging
from kdp.progress import duration, progress, rate
from tests.runs import run_kdp

CONFIG = """\
seed: 1
model: {name: catanet, args: {upscale: 2, dim: 8, tab_heads: 2, tab_neurons: 6, lrsa_heads: 2,
  lrsa_neurons: 6, qk_head_dim: 3, v_head_dim: 4, patch_sizes: [8, 10], num_tokens: [4, 8],
  group_sizes: [16, 8]}}
data: {patch_size: 16}
train: {steps: 6, batch_size: 2, log_every: 2, validate_every: 3}
output: {name: tiny, dir: weights, runs: runs}
"""


def _kdp(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A training whose output goes into files, where nothing is a terminal."""
    tmp_path = tmp_path_factory.mktemp("training")
    (tmp_path / "tiny.yml").write_text(CONFIG)
    done = run_kdp("train", "-c", "tiny.yml", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done


def test_a_run_begins_with_a_header(training: subprocess.CompletedProcess[str]) -> None:
    title, *lines = training.stderr.splitlines()[:6]
    assert title == "kdp train: tiny, 6 steps"
    assert lines[0].startswith("  device      cpu (")
    assert lines[1:] == [
        "  data        training 5, embedded 2",
        "  parameters  6,387",
        "  deployed    6,387 parameters, 47.9 M MACs, 25.5 kB at fp32, 12.8 kB at fp16, "
        "6.39 kB at int8",
        "  writes      weights/tiny.pth, weights/tiny_last.pth, runs/tiny_train",
    ]


def test_a_piped_training_prints_plain_lines(
    training: subprocess.CompletedProcess[str],
) -> None:
    assert not [c for c in training.stdout + training.stderr if c < " " and c != "\n"]
    steps = [line for line in training.stderr.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in steps] == [
        "step 2/6",
        "step 3",
        "step 4/6",
        "step 6/6",
        "step 6",
    ]
    assert "loss" in steps[0]
    assert "left" in steps[0]
    assert re.fullmatch(r"step 3: validation on embedded psnr [\d.]+, ssim [\d.]+", steps[1])
    assert training.stdout.splitlines() == ["weights/tiny.pth", "weights/tiny_last.pth"]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    ("flag", "level"),
    [
        ("-q", logging.WARNING),
        ("--quiet", logging.WARNING),
        ("-v", logging.DEBUG),
        ("--verbose", logging.DEBUG),
        ("--debug", logging.DEBUG),
    ],
)
def test_a_global_flag_may_stand_anywhere(position: int, flag: str, level: int) -> None:
    arguments = ["chains", "--format=json"]
    arguments.insert(position, flag)
    assert _kdp(*arguments).exit_code == 0
    assert log.level == level


def test_quiet_prints_results_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there are no chains" in _kdp("chains").stderr
    assert _kdp("chains", "-q").stderr == ""


def test_progress_in_a_pipe_is_an_occasional_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    set_up_logging()
    with progress("scoring", 100) as advance:
        for number in range(100):
            advance(note=f"unit {number}")
    lines = capsys.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 11
    assert lines[0].startswith("scoring: 10 of 100, ")
    assert lines[0].endswith("left, unit 9")
    assert lines[-1].startswith("scoring: 100 of 100, took ")


def test_progress_within_a_step_is_a_fraction(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    set_up_logging()
    with progress("upscaling", 1) as advance:
        advance(Fraction(1, 4))
    assert capsys.readouterr().err.startswith("upscaling: 0 of 1 (25%), ")


def test_progress_is_silent_with_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(logging.WARNING)
    with progress("scoring", 1) as advance:
        advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3 * 3600 + 300, "3 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rates() -> None:
    assert [rate(3.14), rate(0.25), rate(None)] == ["3.1/s", "4.0 s each", "-"]


def test_ctrl_c_is_one_line_and_exit_code_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["kdp", "chains"])
    monkeypatch.setattr("kdp.stages.chains.list_chains", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "kdp: interrupted\n"
