"""Recorded experiments: their folders, their table and reproducing predictions."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from kdp.artifacts import load
from kdp.cli import app
from kdp.config import Config
from kdp.config.compose import load_config
from kdp.errors import KdpError
from kdp.files import sha256
from kdp.models import build
from kdp.models.loading import load_network
from kdp.stages.experiments import store as experiments
from kdp.stages.experiments.list import list_experiments
from kdp.stages.experiments.results import COLUMNS, FILES
from kdp.stages.experiments.store import ExperimentRequest, RunLabel, store_result
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.tasks import task_for
from kdp.types import Arch
from tests import runs as catanet
from tests.models.face_mask_helpers import settings
from tests.runs import run_kdp


def face(folder: Path, **changes: Any) -> Config:
    kept = {"experiments": {"folder": str(folder / "experiments"), "notes": "small, but whole"}}
    return settings(folder, **{"distill": None, "finetune": None, **kept, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings with different seeds, and their experiments."""
    folder = tmp_path_factory.mktemp("trained")
    for seed in (1, 2):
        train(face(folder, seed=seed), overwrite=True)
    return folder


@pytest.fixture
def kept(trained: Path, tmp_path: Path) -> Path:
    """A copy of the experiments that a test may change."""
    return Path(shutil.copytree(trained / "experiments", tmp_path / "experiments"))


def ids(folder: Path) -> list[str]:
    return [row["exp_id"] for row in list_experiments(folder).rows]


def kdp(*arguments: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "100"})
    return runner.invoke(app, [str(argument) for argument in arguments])


def fault(result: Result) -> str:
    assert isinstance(result.exception, KdpError), result.exception
    (line,) = str(result.exception).splitlines()
    return line


def keep_again(folder: Path) -> Path:
    """Record what was trained once more, with one evaluation set of three images."""
    config, path = face(folder), folder / "w" / "tiny.pth"
    model, arch, _ = load_network(path)
    request = ExperimentRequest.from_config(config)
    assert request is not None
    label, metrics = RunLabel.now("tiny", "train"), {"toy": {"accuracy": 0.5}}
    return store_result(request, "train", path, task_for(arch, config), model, metrics, label)


def test_a_training_records_everything_it_was_made_with(trained: Path) -> None:
    path = trained / "experiments" / ids(trained / "experiments")[0]
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
    assert load_config(path / "config.yml") == face(trained, seed=1)
    info = json.loads((path / "info.json").read_text())
    assert info["sha256"] == sha256(path / "checkpoint.pth")
    assert (info["params"], info["sparsity"]) == (828, 0)
    assert info["bytes"] == {"fp32": 3312, "fp16": 1656, "int8": 828}
    assert info["macs"]["count"] == 193552
    assert info["seed"] == 1
    metrics = json.loads((path / "metrics.json").read_text())
    assert metrics == load(path / "checkpoint.pth").record.metrics
    assert info["value"] == info["macro_avg_acc"] == metrics["toy"]["accuracy"]


def test_the_table_has_a_line_per_experiment(trained: Path) -> None:
    with (trained / "experiments" / "results.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [line[0] for line in lines] == ids(trained / "experiments")
    assert [line[8] for line in lines] == ["small, but whole"] * 2


def test_fine_tuning_is_kept_and_names_its_parents(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "w", tmp_path / "w")
    tuning = settings(tmp_path).finetune
    config = face(tmp_path, pruning_ratio=0.5, finetune=tuning, train=None)
    prune(config)
    finetune(config)
    (name,) = (name for name in ids(tmp_path / "experiments") if "finetune" in name)
    info = json.loads((tmp_path / "experiments" / name / "info.json").read_text())
    assert info["stage"] == "finetune"
    assert info["params"] == rebuild(config).parameters < 828  # as many as were not removed
    assert [Path(p["path"]).name for p in info["parents"]] == [
        "tiny_pruned.pth",
        "tiny_pruning_masks.pth",
    ]
    assert kdp("reproduce", name, "--folder", tmp_path / "experiments").exit_code == 0


def test_predictions_are_those_of_the_file_after_mixed_precision(
    trained: Path, tmp_path: Path
) -> None:
    """Accelerate wraps the network that it trains, and the wrapper stays."""
    shutil.copytree(trained / "w", tmp_path / "w")
    learning = {"finetune": settings(tmp_path).finetune, "distill": {"losses": {"feature": {}}}}
    config = face(tmp_path, pruning_ratio=0.5, train=None, **learning)
    prune(config)
    file = tmp_path / "c.yml"
    file.write_text(yaml.safe_dump(config.plain()))
    done = run_kdp("finetune", "-c", str(file), "finetune.mixed_precision=bf16")
    assert done.returncode == 0, done.stderr
    (name,) = (name for name in ids(tmp_path / "experiments") if "finetune" in name)
    assert kdp("reproduce", name, "--folder", tmp_path / "experiments").exit_code == 0


def test_nothing_is_recorded_unless_configured(tmp_path: Path) -> None:
    train(face(tmp_path, experiments=None))
    assert {path.name for path in tmp_path.iterdir()} == {"w", "runs"}


def test_recordings_in_the_same_second_do_not_collide(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        @staticmethod
        def now(zone: timezone) -> datetime:
            return datetime(2030, 1, 2, 3, 4, 5, tzinfo=zone)

    monkeypatch.setattr(experiments, "datetime", Clock)
    shutil.copytree(trained / "w", tmp_path / "w")
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(keep_again, [tmp_path] * 3))
    name = "tiny-train-20300102-030405"
    assert sorted(p.name for p in paths if p) == [name, f"{name}-2", f"{name}-3"]
    lines = (tmp_path / "experiments" / "results.csv").read_text().splitlines()
    assert sorted(line.split(",")[0] for line in lines) == [
        "exp_id",
        name,
        f"{name}-2",
        f"{name}-3",
    ]


def test_a_failed_recording_leaves_nothing(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: object) -> str:
        raise KdpError("no space left")

    shutil.copytree(trained / "w", tmp_path / "w")
    monkeypatch.setattr(experiments, "csv_of_mappings", fail)
    with pytest.raises(KdpError, match="no space"):
        keep_again(tmp_path)
    assert not list((tmp_path / "experiments").iterdir())


def test_a_killed_recording_is_not_an_experiment(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained / "w", tmp_path / "w")
    monkeypatch.setattr(
        experiments, "csv_of_mappings", lambda rows: os.kill(os.getpid(), signal.SIGKILL)
    )
    child = os.fork()
    if not child:
        keep_again(tmp_path)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert "no experiments" in kdp("experiments", "--folder", tmp_path / "experiments").output


def test_experiments_are_sorted_and_ids_are_not_truncated(kept: Path) -> None:
    first, second = ids(kept)
    change(kept / second, value=0.9)
    change(kept / first, value=0.1)
    table = kdp("experiments", "--folder", kept, "--sort", "value", "--reverse").output
    assert [word for word in table.split() if word in (first, second)] == [second, first]
    assert max(len(line) for line in table.splitlines()) <= 100
    wrong = fault(kdp("experiments", "--folder", kept, "--sort", "valeu"))
    assert "'valeu'; did you mean 'value'?" in wrong


def change(path: Path, **values: Any) -> None:
    info = json.loads((path / "info.json").read_text())
    (path / "info.json").write_text(json.dumps({**info, **values}))


def test_the_difference_of_two_runs(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "difference.json"
    shown = kdp("experiments", "--folder", kept, "--diff", *ids(kept), "--output", file).output
    assert "seed" in shown
    assert "toy.accuracy" in shown
    difference = json.loads(file.read_text())
    assert difference["config"] == {"seed": [1, 2]}
    assert difference["metrics"]["params"] == [828, 828]
    first = ids(kept)[0]
    wrong = fault(kdp("experiments", "--folder", kept, "--diff", first, f"{first}0"))
    assert f"did you mean '{first}'?" in wrong


def test_experiments_of_the_old_format_are_read(kept: Path) -> None:
    """Earlier versions had other names for the primary metric and for the predicted class."""
    path = kept / ids(kept)[0]
    info = json.loads((path / "info.json").read_text())
    info["headline"] = info.pop("primary_metric")
    (path / "info.json").write_text(json.dumps(info))
    table = (kept / "results.csv").read_text()
    (kept / "results.csv").write_text(table.replace(",primary_metric,", ",headline,"))
    predictions = (path / "predictions.csv").read_text()
    (path / "predictions.csv").write_text(predictions.replace(",predicted,", ",found,", 1))
    rows = list_experiments(kept, sort="headline").rows
    assert [row["primary_metric"] for row in rows] == ["accuracy", "accuracy"]
    assert kdp("experiments", "--folder", kept, "--diff", *ids(kept)).exit_code == 0
    assert kdp("reproduce", path).exit_code == 0


def test_incomplete_and_missing_experiments_are_named(kept: Path) -> None:
    first, second = ids(kept)
    (kept / first / "predictions.csv").unlink()
    shutil.rmtree(kept / second)
    shown = kdp("experiments", "--folder", kept).output
    assert f"{first} is incomplete: it lacks predictions.csv" in shown
    assert f"{second} is gone" in shown


@pytest.mark.parametrize("threads", [1, 2])
def test_predictions_are_reproduced_byte_for_byte(kept: Path, tmp_path: Path, threads: int) -> None:
    (name, _), target, before = ids(kept), tmp_path / "again.csv", torch.get_num_threads()
    torch.set_num_threads(threads)
    done = kdp("reproduce", name, "--folder", kept, "--output", target)
    torch.set_num_threads(before)
    assert done.exit_code == 0, done.exception
    assert "40 predictions, byte for byte" in done.output
    assert target.read_bytes() == (kept / name / "predictions.csv").read_bytes()


def test_differing_predictions_are_counted(kept: Path) -> None:
    path = kept / ids(kept)[0]
    lines = (path / "predictions.csv").read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace("0.", "1.")
    (path / "predictions.csv").write_text("".join(lines))
    assert "1 of 40 rows differ" in fault(kdp("reproduce", path))


def test_a_changed_checkpoint_is_refused(kept: Path) -> None:
    path = kept / ids(kept)[0]
    shutil.copy(kept / ids(kept)[1] / "checkpoint.pth", path / "checkpoint.pth")
    assert "was changed" in fault(kdp("reproduce", path))


def test_predictions_of_images(tmp_path: Path) -> None:
    config = catanet.config(tmp_path)
    assert config.model is not None
    model = build("catanet", **config.model.args)
    rows = task_for(config.model.arch, config).predictions(model)
    assert [(row["set"], row["name"]) for row in rows] == [("small", str(n)) for n in range(2)]
    assert [len(str(rows[0][key]).partition(".")[2]) for key in ("psnr", "ssim")] == [4, 6]


def test_predictions_of_audio(tmp_path: Path) -> None:
    config = face(tmp_path, evaluation={"toy": {}})
    task: Any = task_for(Arch("cp_mobile", {}), config)
    task.evaluation_sets = {"toy": task.evaluation_sets["toy"][:3]}
    rows = task.predictions(build("cp_mobile"))
    assert list(rows[0])[:6] == ["set", "clip", "start", "device", "label", "predicted"]
    assert len(rows) == 3
    assert sum(float(p) for key, p in rows[0].items() if key[:2] == "p_") == pytest.approx(
        1, abs=1e-5
    )
