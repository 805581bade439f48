"""One-shot pruning and rebuilding are recorded as experiments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.stages.experiments.list import list_experiments
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.train import train
from tests.models.face_mask_helpers import settings


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Trained, pruned and rebuilt, without fine-tuning."""
    train(settings(tmp_path, distill=None))
    experiments = {"folder": str(tmp_path / "experiments")}
    config = settings(tmp_path, distill=None, pruning_ratio=0.5, experiments=experiments)
    prune(config)
    rebuild(config)
    return tmp_path


def test_each_stage_is_an_experiment_with_its_own_costs(recorded: Path) -> None:
    rows = list_experiments(recorded / "experiments").rows
    infos = [
        json.loads((recorded / "experiments" / row["exp_id"] / "info.json").read_text())
        for row in rows
    ]
    assert [info["stage"] for info in infos] == ["prune", "rebuild"]
    pruned, small = infos
    dense = 828
    assert small["params"] <= pruned["params"] < dense
    assert small["macs"]["count"] <= pruned["macs"]["count"]
    for info, row in zip(infos, rows, strict=True):
        assert info["sparsity"] == row["sparsity"] == pytest.approx(1 - info["params"] / dense)
        assert info["bytes"]["int8"] == row["bytes_int8"] == info["params"]
    # The rebuilt network computes what the masked one does.
    assert small["value"] == pruned["value"]
    assert rows[0]["primary_metric"] == "accuracy"


def test_nothing_is_evaluated_without_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, distill=None, pruning_ratio=0.5)
    train(config)
    monkeypatch.setattr("kdp.stages.experiments.store.store_result", None)
    prune(config)
    assert "toy" not in load(tmp_path / "w/tiny_pruned.pth").record.metrics


def _folder(experiments: Path) -> None:
    (experiments / "results.csv").mkdir(parents=True)


def _pipe(experiments: Path) -> None:
    experiments.mkdir()
    os.mkfifo(experiments / "results.csv")


def _file(experiments: Path) -> None:
    experiments.write_text("notes")


def _damaged(experiments: Path) -> None:
    experiments.mkdir()
    (experiments / "results.csv").write_bytes(b"exp_id\n" + b"x" * 200_000)


@pytest.mark.parametrize("spoil", [_folder, _pipe, _file, _damaged])
def test_a_table_that_cannot_be_written_is_named_before_the_first_step(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    plain = {"distill": None, "pruning_ratio": 0.5}
    train(settings(tmp_path, **plain))
    prune(settings(tmp_path, **plain))
    before = sorted(path for path in tmp_path.rglob("*.pth"))
    spoil(tmp_path / "experiments")
    experiments = {"folder": str(tmp_path / "experiments")}
    other = {"name": "other", "dir": str(tmp_path / "w"), "runs": str(tmp_path / "runs")}
    recorded = settings(tmp_path, **plain, experiments=experiments)
    elsewhere = settings(tmp_path, **plain, experiments=experiments, output=other)
    words = r"experiments cannot be written|experiments/results\.csv"
    for stage, config in ((train, elsewhere), (prune, elsewhere), (rebuild, recorded)):
        with pytest.raises(KdpError, match=words):
            stage(config)
    assert sorted(path for path in tmp_path.rglob("*.pth")) == before
