"""`kdp sweep`: a grid of real trainings by Hydra's multirun."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.files import is_locked
from kdp.stages.experiments.list import list_experiments
from kdp.stages.sweep import sweep as stage
from kdp.stages.sweep.job import point_name, start
from kdp.stages.sweep.parent import end_with_parent
from kdp.stages.sweep.sweep import sweep
from tests.models.face_mask_helpers import settings
from tests.runs import complaints, fork_modules, run_kdp, start_kdp, wait_until
from tests.sweeps import launch_here

LONG = ("sweep", "train.steps=9000", "seed=0,1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration of two training steps that records experiments."""
    plain = settings(tmp_path, distill=None).model_dump(mode="json")
    plain["train"].update(steps=2, validate_every=2)
    plain["experiments"] = {"folder": str(tmp_path / "experiments")}
    path = tmp_path / "face.yml"
    path.write_text(yaml.safe_dump(plain))
    return path


def test_a_grid_records_an_experiment_for_every_point(file: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    # The first key has values of Hydra's grammar, those of the second are plain text.
    grid = ("model.args.channels=[4,6,8],[2,4,6]", "experiments.notes=größe=2 [1,${x")
    done = run_kdp("sweep", "--config", str(file), *grid, cwd=here, before=fork_modules)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done") == 4
    rows = list_experiments(tmp_path / "experiments").rows
    assert sorted((row["config"], row["params"], row["notes"]) for row in rows) == [
        ("tiny_2-4-6_größe-2--1_2", 392, "größe=2 [1"),
        ("tiny_2-4-6_x_3", 392, "${x"),
        ("tiny_4-6-8_größe-2--1_0", 828, "größe=2 [1"),
        ("tiny_4-6-8_x_1", 828, "${x"),
    ]
    assert not list(here.iterdir())


def test_a_point_that_fails_does_not_stop_the_others(file: Path) -> None:
    command = ("sweep", "-c", str(file), "train.steps=0,2", "output.name=mine")
    done = run_kdp(*command, before=fork_modules)
    assert done.returncode == 2
    assert complaints(done.stderr) == ["kdp: 1 of 2 points failed"]
    (failed,) = (line for line in done.stderr.splitlines() if "failed, " in line)
    assert "train.steps: Input should be greater than" in failed
    assert "accuracy" in done.stdout


def test_points_run_in_parallel(file: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    points = sweep(file, ["train.steps=0,-1", "seed=3"], launcher="joblib", jobs=2).points
    assert [(p.number, p.status) for p in points] == [(0, "failed"), (1, "failed")]


def test_ctrl_c_stops_every_point_after_a_checkpoint(file: Path, tmp_path: Path) -> None:
    process = start_kdp(*LONG, "-c", str(file), before=fork_modules)
    checkpoint = tmp_path / "runs" / "tiny_0_train" / "checkpoint.pth"
    wait_until(checkpoint.exists, process)
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert complaints(stderr) == ["kdp: stopped; 0 of 2 points are done"]


def test_a_killed_sweep_leaves_nothing_training(file: Path, tmp_path: Path) -> None:
    process = start_kdp(*LONG, "-c", str(file), before=fork_modules)
    folder = tmp_path / "runs" / "tiny_0_train"
    wait_until((folder / "checkpoint.pth").exists, process)
    process.kill()
    (log,) = (tmp_path / "runs" / "tiny_sweep").glob("*/0/log.txt")
    outcomes = [log.parent.with_name(point) / "outcome.json" for point in "01"]
    end = time.monotonic() + 60
    while not all(path.exists() for path in outcomes):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    assert [json.loads(path.read_text())["status"] for path in outcomes] == ["stopped"] * 2
    assert "continue with --resume" in log.read_text()
    assert not is_locked(tmp_path / "w" / "tiny_0.pth")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_process_ends_with_its_parent(end: signal.Signals | None) -> None:
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        if child := os.fork():
            if end:
                os.kill(os.getpid(), end)
            os._exit(0)
        signal.signal(signal.SIGTERM, lambda *_: os.write(write, b"ended") and os._exit(0))
        end_with_parent(os.getppid() if end else 0)  # 0: it had ended before
        time.sleep(60)
        os._exit(child)
    os.waitpid(parent, 0)
    os.close(write)
    assert os.read(read, 5) == b"ended"


def test_a_launcher_that_is_not_installed_names_its_extra(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(stage.metadata, "version", absent)
    with pytest.raises(KdpError, match=r"'slurm' is missing: pip install hydra-submitit-launcher"):
        sweep(file, ["seed=0,1"], launcher="slurm")


def test_points_import_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stray in ("torch.py", "runpy.py", "kdp.py", "hydra_plugins/stray.py"):
        module = tmp_path / stray
        module.parent.mkdir(exist_ok=True)
        module.write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "log").open("w") as log:
        start("kdp.stages.sweep.job", ["--help"], log).wait()
    assert "is powered by Hydra" in (tmp_path / "log").read_text()
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stages": ["trian"]}, "'trian'; did you mean 'train'?"),
        ({"jobs": 2}, "give --launcher joblib"),
        ({"overrides": ["sede=0", "seed=1,2"]}, "'sede'; did you mean 'seed'?"),
        ({"overrides": ["seed=interval(0,1)"]}, "cannot be swept: list its values"),
        ({"overrides": ["seed=glob(*)"]}, "cannot be swept: list its values"),
        ({"overrides": ["sede"]}, "not of the form KEY=VALUE"),
        ({"overrides": ["seed=0,1,0"]}, "the value seed=0 twice"),
        ({"overrides": ["output.name=a,b,a", "seed=0,1"]}, "the value output.name=a twice"),
        ({"overrides": ["seed=0,1", "seed=2,3"]}, "varies seed twice"),
        ({"overrides": ["seed=0,1", "hydra.launcher.partition=gpu"]}, "2 points did not run"),
    ],
)
def test_an_impossible_sweep_is_a_one_line_error(
    file: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError) as caught:
        sweep(file, **{"overrides": ["seed=0,1"], **given})
    (line,) = str(caught.value).splitlines()
    assert message in line


NAMES = {
    "seed=0,1": ["own_0", "own_1"],
    "output.name=a,b": ["a", "b"],
    "output.name=a,b seed=0,1": ["a_0", "a_1", "b_0", "b_1"],
    "output.dir=x/w,y/w": ["own_x-w_0", "own_y-w_1"],
    "teacher=/,0": ["own__0", "own_0"],
    "data.folder=a_1,a-1 seed=0,1": ["own_a-1_0_0", "own_a-1_1_1", "own_a-1_0", "own_a-1_1"],
    "output.name='a b',c seed=0,1": ["a b_0", "a b_1", "c_0", "c_1"],
}


@pytest.mark.parametrize("grid", NAMES)
def test_no_two_points_have_one_name(grid: str) -> None:
    keys = [override.split("=") for override in re.split(r" (?=\w+[.=])", grid)]
    values = [[f"{key}={value}" for value in text.split(",")] for key, text in keys]
    points = [list(point) for point in product(*values)]
    names = [point_name("own", point, number) for number, point in enumerate(points)]
    assert names == NAMES[grid]
    assert len(set(names)) == len(points)


@pytest.mark.parametrize(
    "given", ["output.name=mine", "output.dir={folder}", "output.runs={folder}"]
)
def test_points_keep_their_files_apart_whatever_is_given(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr(stage, "launch", launch_here)
    given = given.format(folder=tmp_path / "elsewhere")
    points = sweep(file, [given, "seed=0,1"]).points
    assert [point.status for point in points] == ["done", "done"]
    files = [point.qualities[0].file for point in points]
    stem = "mine" if "name" in given else "tiny"
    assert [Path(path).stem for path in files] == [f"{stem}_0", f"{stem}_1"]
    seeds = [load(Path(path)).record.seed for path in files]
    assert seeds == [0, 1]


def test_a_machine_without_slurm_says_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage.metadata, "version", lambda name: "1")
    monkeypatch.setattr(stage, "which", lambda name: None)
    with pytest.raises(KdpError, match="sbatch"):
        sweep(file, ["seed=0,1"], launcher="slurm")
