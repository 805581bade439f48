"""One-shot pruning and rebuilding are recorded as experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdp.artifacts import load
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
