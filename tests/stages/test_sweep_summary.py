"""Mean and spread over the seeds of a sweep."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from kdp.stages.sweep.job import SweepPoint
from kdp.stages.sweep.quality import AS_CUT, StageQuality
from kdp.stages.sweep.summary import is_repeated, show, summary_rows, to_csv, to_json
from kdp.stages.train.train import train
from tests.models.face_mask_helpers import settings
from tests.runs import fork_modules, run_kdp


def point(number: int, overrides: str, accuracy: float) -> SweepPoint:
    metrics = {"val": {"accuracy": accuracy, "f1": accuracy / 2, "class a": 1.0}}
    quality = StageQuality("train", "a.pth", ["accuracy", "f1"], metrics)
    return SweepPoint(number, overrides.split(), "done", qualities=[quality])


def printed(points: list[SweepPoint]) -> str:
    text = io.StringIO()
    show(points, Console(file=text, width=100))
    return text.getvalue()


SEEDS = [point(n, f"seed={n}", value) for n, value in enumerate((0.90, 0.92, 0.97))]


def test_seeds_end_in_mean_and_spread() -> None:
    (accuracy, *_) = summary_rows(SEEDS)
    assert (accuracy.settings, accuracy.seeds) == ({}, ["0", "1", "2"])
    plain = accuracy.plain()
    assert (plain["n"], plain["min"], plain["max"]) == (3, 0.90, 0.97)
    assert plain["mean"] == pytest.approx(0.93)
    assert plain["spread"] == pytest.approx(0.0360555)
    assert "0.9300 ± 0.0361" in printed(SEEDS)


@pytest.mark.parametrize(
    ("points", "repeated"),
    [
        (SEEDS, True),
        (SEEDS[:1], False),
        ([point(n, f"pruning_ratio={ratio}", 0.9) for n, ratio in enumerate((0.3, 0.5))], False),
    ],
)
def test_a_table_of_mean_and_spread_needs_seeds(points: list[SweepPoint], repeated: bool) -> None:
    assert is_repeated(points) == repeated


def test_only_points_of_equal_settings_are_averaged() -> None:
    grid = [
        point(0, f"train.lr={rate} seed={seed}", rate + seed)
        for rate in (0.1, 0.2)
        for seed in (0, 1)
    ]
    rows = [row for row in summary_rows(grid) if row.metric == "accuracy"]
    assert [(row.settings, row.values) for row in rows] == [
        ({"train.lr": "0.1"}, [0.1, 1.1]),
        ({"train.lr": "0.2"}, [0.2, 1.2]),
    ]


def test_a_single_value_has_no_spread() -> None:
    (accuracy, *_) = summary_rows([point(0, "pruning_ratio=0.3", 0.5)])
    assert accuracy.plain()["spread"] is None
    assert "±" not in printed([point(0, "pruning_ratio=0.3", 0.5)])


def test_points_that_failed_count_as_far_as_they_came() -> None:
    failed = SweepPoint(3, ["seed=3"], "failed", "no space left", SEEDS[0].qualities)
    without = SweepPoint(4, ["seed=4"], "failed", "no data")
    assert summary_rows([*SEEDS, failed, without])[0].seeds == ["0", "1", "2", "3"]
    assert failed.result == "no space left"


def test_files_hold_every_metric_and_the_settings() -> None:
    points = [point(0, "pruning_ratio=0.3 seed=1", 0.5), point(1, "pruning_ratio=0.3 seed=2", 0.7)]
    rows = list(csv.DictReader(io.StringIO(to_csv(points))))
    assert [row["metric"] for row in rows] == ["accuracy", "f1", "class a"]
    assert (rows[0]["pruning_ratio"], rows[0]["seeds"], rows[0]["n"]) == ("0.3", "1 2", "2")
    content = json.loads(to_json(points))
    assert content["summary"][0]["mean"] == pytest.approx(0.6)
    assert SweepPoint.from_plain(content["points"][1]) == points[1]


def test_many_sets_show_their_primary_metric_alone() -> None:
    metrics = {name: {"psnr": 30.0, "ssim": 0.9} for name in ("a", "b", "c")}
    quality = StageQuality("train", "a.pth", ["psnr", "ssim"], metrics)
    shown = printed([SweepPoint(0, ["seed=0"], "done", qualities=[quality])])
    assert "c psnr" in shown
    assert "ssim" not in shown


def test_pruning_is_measured_as_cut_and_compared_in_one_command(tmp_path: Path) -> None:
    fast = {"latency_runs": 1, "warmup_runs": 1}
    config = settings(tmp_path, finetune=None, distill=None, measure=fast)
    train(config)
    file = tmp_path / "face.yml"
    file.write_text(yaml.safe_dump(config.plain()))
    command = ("sweep", "-c", str(file), "pruning_ratio=0.3,0.5", "--compare")
    done = run_kdp(*command, "--stage", "prune", "--format", "json", before=fork_modules)
    assert done.returncode == 0, done.stderr
    rows = [row for row in json.loads(done.stdout)["summary"] if row["metric"] == "accuracy"]
    assert [(row["settings"], row["stage"], row["n"]) for row in rows] == [
        ({"pruning_ratio": ratio}, AS_CUT, 1) for ratio in ("0.3", "0.5")
    ]
    (folder,) = (tmp_path / "runs" / "tiny_sweep").iterdir()
    assert (folder / "summary.csv").exists()
    compared = json.loads((folder / "compare.json").read_text())
    names = [Path(column["path"]).name for column in compared["columns"]]
    assert names == ["tiny.pth", "tiny_0.3_pruned.pth", "tiny_0.5_pruned.pth"]
    measured = [column["quality"]["toy"]["accuracy"] for column in compared["columns"]]
    assert [row["mean"] for row in rows] == pytest.approx(measured[1:])
