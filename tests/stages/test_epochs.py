"""Stages whose lengths are given in epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import load
from kdp.errors import Interrupted, KdpError
from kdp.stages.prune.progressive import prune_in_rounds
from kdp.stages.train.finetune import finetune
from kdp.stages.train.request import CacheTargetsRequest
from kdp.stages.train.train import train
from kdp.stages.validate import validate
from kdp.training import loop
from tests.conftest import same_params
from tests.runs import SHORT, config, prune
from tests.stages.test_rounds import config as rounds_config
from tests.training.helpers import press_ctrl_c

EPOCH = {key: value for key, value in SHORT.items() if key not in ("steps", "validate_every")}
TWO_EPOCHS = {**EPOCH, "epochs": 2, "validate_every_epochs": 1, "warmup_epochs": 1}
"""On three images in batches of two: two steps an epoch."""
FOUR_STEPS = {**SHORT, "steps": 4, "validate_every": 2, "warmup_steps": 2}


def test_epochs_train_as_so_many_steps(tmp_path: Path) -> None:
    a, b = (
        load(train(config(tmp_path, distill=None, train=length, output=output))["last"])
        for length, output in (
            (TWO_EPOCHS, {"name": "a", "dir": tmp_path / "a", "runs": tmp_path / "a"}),
            (FOUR_STEPS, {"name": "b", "dir": tmp_path / "b", "runs": tmp_path / "b"}),
        )
    )
    assert same_params(a.params, b.params)
    length = {"steps": 4, "epochs": 2, "samples": 3, "steps_per_epoch": 2}
    assert a.record.training == b.record.training == length


def test_patience_in_epochs_ends_a_training(tmp_path: Path, caplog: Any) -> None:
    lengths = {**TWO_EPOCHS, "epochs": 50, "patience_epochs": 2, "lr": 1e-12, "ema_decay": 0}
    with caplog.at_level("INFO", "kdp"):
        train(config(tmp_path, distill=None, train=lengths))
    assert "has not improved since step" in caplog.text


@pytest.mark.parametrize("longer", [{"epochs": 3}, {"steps": 6, "epochs": None}])
def test_a_run_in_epochs_is_resumed_and_extended(
    tmp_path: Path, longer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop._TrainingRun._train_step

    def stopped(run: Any, batch: Any) -> None:
        step(run, batch)
        press_ctrl_c()

    monkeypatch.setattr(loop._TrainingRun, "_train_step", stopped)
    with pytest.raises(Interrupted):
        train(config(tmp_path, distill=None, train=TWO_EPOCHS))
    monkeypatch.setattr(loop._TrainingRun, "_train_step", step)
    changed = config(tmp_path, distill=None, train={**TWO_EPOCHS, **longer})
    assert load(train(changed, resume=True)["last"]).record.training["steps"] == 6


def test_fewer_epochs_do_not_replace_more(tmp_path: Path) -> None:
    train(config(tmp_path, distill=None, train=TWO_EPOCHS))
    with pytest.raises(KdpError, match="took 4 steps, this run 2"):
        train(config(tmp_path, distill=None, train={**TWO_EPOCHS, "epochs": 1}))


def test_a_pruned_network_is_fine_tuned_for_epochs(tmp_path: Path) -> None:
    prune(tmp_path)
    path = finetune(config(tmp_path, distill=None, finetune=TWO_EPOCHS))["finetuned"]
    assert load(path).record.training["steps"] == 4


def test_rounds_last_epochs(tmp_path: Path) -> None:
    lengths: list[dict[str, float]] = [{"epochs": 0.25}, {"steps": 3}, {}]
    rounds = [{"pruning_ratio": 0.3, **length} for length in lengths]
    finetune = {**EPOCH, "batch_size": 8, "epochs": 0.5, "validate_every_epochs": 0.25}
    settings = rounds_config(tmp_path, rounds=rounds, finetune=finetune)
    done = prune_in_rounds(settings)
    epoch = load(tmp_path / "w/tiny_round1_finetuned_logits.pth").record.training["steps_per_epoch"]
    trained = [(row["steps"], row["epochs"]) for row in done.rows[1:]]
    half = round(0.5 * epoch)
    assert trained == [(round(0.25 * epoch), 0.25), (3, round(3 / epoch, 3)), (half, 0.5)]
    assert prune_in_rounds(settings, resume=True).rows == done.rows


def test_pruning_while_training_ends_in_an_epoch(tmp_path: Path) -> None:
    dynamic = {"criterion": "magnitude", "end_epoch": 1, "period_epochs": 0.5}
    changes = {"distill": None, "mac_constraint": 0.8, "measure": {"input_size": [16, 16]}}
    settings = config(tmp_path, dynamic=dynamic, train=TWO_EPOCHS, **changes)
    assert load(train(settings)["masks"]).extra["budget"]["mac_constraint"] == 0.8
    late = config(tmp_path, dynamic={**dynamic, "end_epoch": 3}, train=TWO_EPOCHS, **changes)
    with pytest.raises(KdpError, match=r"end_step \(6\) is after the last of the 4 steps"):
        train(late)


def test_targets_are_cached_for_the_longer_training(tmp_path: Path) -> None:
    prune(tmp_path)
    request = CacheTargetsRequest.from_config(config(tmp_path, train=TWO_EPOCHS, finetune=SHORT))
    assert request.amount(3) == (12, 2)
    assert request.amount(30) == (60, 2)


def test_validate_counts_the_steps_of_epochs(tmp_path: Path) -> None:
    checks = validate(config(tmp_path, distill=None, finetune=None, teacher=None, train=TWO_EPOCHS))
    assert "4 steps take roughly" in next(c.message for c in checks if c.name == "train")
