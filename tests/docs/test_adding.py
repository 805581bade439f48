"""What docs/adding.md shows works as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import load
from kdp.config import Config
from kdp.distillation.losses import LOSSES
from kdp.models import MODELS
from kdp.pruning import dynamic
from kdp.pruning.importance import CRITERIA
from kdp.stages.compare.compare import compare
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.tasks import TASKS
from kdp.types import Arch
from tests.conftest import ROOT
from tests.runs import SHORT, config
from tests.runs import prune as write_teacher

TABLES: tuple[dict[str, Any], ...] = (LOSSES, CRITERIA, dynamic.GATE_CRITERIA, MODELS, TASKS)


@pytest.fixture(autouse=True)
def examples() -> Iterator[list[str]]:
    """The Python of the page, run; the tables are as before afterwards."""
    before = [dict(table) for table in TABLES]
    page = (ROOT / "docs" / "adding.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "docs/adding.md", "exec"), names)
    yield blocks
    for table, old in zip(TABLES, before, strict=True):
        table.clear()
        table.update(old)


def student(folder: Path, **changes: Any) -> Config:
    losses = {"cosine": {"weight": 0.5, "options": {"power": 2}}}
    return config(folder, distill={"losses": losses}, **changes)


def test_an_added_loss_is_trained_with_and_logged(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    train(student(tmp_path))
    assert '"cosine":' in (tmp_path / "runs/tiny_train/curves.jsonl").read_text()


def test_an_added_criterion_prunes(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    section = {"criterion": "largest", "calibration": {"patches": 2, "patch_size": 12}}
    found = prune(config(tmp_path, mac_constraint=0.8, prune=section))
    assert load(found.masks).record.config["prune"]["criterion"] == "largest"
    assert found.plan.macs < found.plan.dense_macs


def test_an_added_criterion_prunes_while_training(tmp_path: Path) -> None:
    write_teacher(tmp_path)
    settings = {"criterion": "movement", "end_step": 4, "period": 2}
    written = train(student(tmp_path, mac_constraint=0.8, dynamic=settings))
    assert not all(mask.all() for mask in load(written["masks"]).extra["masks"].values())


def test_an_added_family_goes_through_the_whole_chain(tmp_path: Path) -> None:
    settings = Config.model_validate(
        {
            "device": "cpu",
            "output": {"name": "stripes", "dir": tmp_path, "runs": tmp_path / "runs"},
            "model": {"name": "stripes"},
            "teacher": tmp_path / "stripes.pth",
            "pruning_ratio": 0.5,
            "prune": {"criterion": "optin", "calibration": {"patches": 4}},
            "train": {**SHORT, "steps": 60, "batch_size": 16, "lr": 0.02, "validate_every": 60},
            "finetune": {**SHORT, "batch_size": 16},
            "evaluation": {"toy": {}},
            "distill": {"losses": {"logits": {}, "attention_transfer": {}}},
        }
    )
    train(settings.model_copy(update={"distill": None}))
    prune(settings)
    finetune(settings)
    rebuilt = rebuild(settings)
    assert load(rebuilt.path).arch == Arch("stripes", {"channels": [4, 4]})
    assert load(tmp_path / "stripes.pth").record.metrics["toy"]["accuracy"] > 0.9
    assert "stripes" in str(compare([tmp_path / "stripes.pth", rebuilt.path], settings))


def test_the_examples_of_losses_and_criteria_are_short(examples: list[str]) -> None:
    for block in examples[:3]:
        code = [line for line in block.splitlines() if line and "import" not in line]
        assert len(code) <= 10
