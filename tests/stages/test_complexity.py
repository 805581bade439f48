"""What a network costs is measured and written before it is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kdp.config import Config
from kdp.errors import KdpError
from kdp.models import build
from kdp.stages import costs
from kdp.stages.clean import clean
from kdp.stages.costs import Costs
from kdp.stages.prune.progressive import prune_in_rounds
from kdp.stages.prune.prune import prune
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.training import loop
from tests.models.face_mask_helpers import SMALL, parameters, settings

DYNAMIC = {"criterion": "magnitude", "end_step": 4, "period": 2}
ROUNDS = [{"pruning_ratio": 0.3, "steps": 1}] * 2


class Stopped(Exception):
    """Raised in place of the first step."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, and the masks of half of it."""
    folder = tmp_path_factory.mktemp("trained")
    train(settings(folder, distill=None))
    prune(settings(folder, distill=None, pruning_ratio=0.5))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "w", tmp_path / "w")
    return tmp_path


def start(folder: Path, stage: str) -> None:
    """Start a training whose settings differ by stage."""
    if stage == "train":
        train(settings(folder, distill=None), overwrite=True)
    elif stage == "train, dynamic":
        changes = {"distill": None, "mac_constraint": 0.7, "dynamic": DYNAMIC}
        train(settings(folder, **changes), overwrite=True)
    elif stage == "finetune":
        finetune(Config.model_validate({**_pruned(folder), "pruning_ratio": 0.5}))
    else:
        prune_in_rounds(Config.model_validate({**_pruned(folder), "rounds": ROUNDS}))


def _pruned(folder: Path) -> dict[str, Any]:
    # The masks were made in another folder, from the same network.
    return settings(folder, distill=None).plain()


STAGES = {
    "train": ("tiny_train", [4, 6, 8]),
    "train, dynamic": ("tiny_train", [4, 6, 8]),
    "finetune": ("tiny_finetune_plain", [2, 3, 4]),
    "prune": ("tiny_round1_finetune_plain", [2, 4, 5]),
}


@pytest.mark.parametrize(("stage", "run", "channels"), [(s, *v) for s, v in STAGES.items()])
def test_costs_are_written_before_the_first_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str, run: str, channels: list[int]
) -> None:
    def stop(*_: Any) -> None:
        raise Stopped

    monkeypatch.setattr(loop._TrainingRun, "_train_step", stop)
    with pytest.raises(Stopped):
        start(folder, stage)
    written = json.loads((folder / "runs" / run / "complexity.json").read_text())
    count = parameters(build("mask_classifier", **{**SMALL, "channels": channels}))
    assert written["parameters"] == count
    assert written["unpruned_parameters"] == 828
    assert written["sparsity"] == pytest.approx(1 - count / 828)
    assert written["bytes"]["int8"] == count
    assert 0 < written["macs"]["count"] <= 193552
    assert "true head widths" in written["macs"]["counter"]


@pytest.mark.parametrize("stage", STAGES)
def test_what_cannot_be_measured_is_not_trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def broken(*_: Any) -> int:
        raise RuntimeError("no formula for this\nand a second line")

    monkeypatch.setattr(costs, "count_macs_of", broken)
    monkeypatch.setattr(loop._TrainingRun, "_train_step", lambda *_: pytest.fail("trained"))
    with pytest.raises(KdpError) as caught:
        start(folder, stage)
    reason = "the complexity of mask_classifier cannot be measured: no formula for this"
    assert str(caught.value) == reason
    assert not list(folder.glob("runs/*/curves.jsonl"))


def test_clean_deletes_what_was_written(folder: Path) -> None:
    config = settings(folder, distill=None)
    train(config, overwrite=True)
    assert folder / "runs" / "tiny_train" / "complexity.json" in clean(config)
    assert not (folder / "runs" / "tiny_train").exists()


def test_sparsity_is_what_was_removed() -> None:
    small = Costs(parameters=25, macs=10, input_size=(8, 8), unpruned=100)
    assert small.sparsity == 0.75
    assert small.bytes == {"fp32": 100, "fp16": 50, "int8": 25}
