"""Evaluating several networks at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.config import Config
from kdp.models import build
from kdp.tasks import task_for
from kdp.types import Arch
from tests.conftest import TINY
from tests.runs import settings

NETWORKS: dict[str, dict[str, Any]] = {
    "catanet": TINY,
    "mask_classifier": {"channels": [4, 4, 4]},
    "cp_mobile": {"stem": 4, "channels": [8], "hidden": [8], "strides": [[2, 2]]},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_evaluated_together_get_the_same_metrics_as_alone(
    tmp_path: Path, name: str
) -> None:
    plain = settings(tmp_path)
    sets = plain["evaluation"] if name == "catanet" else {"toy": {"kind": "embedded"}}
    config = Config.model_validate({"output": {"name": "x"}, "evaluation": sets})
    task = task_for(Arch(name, NETWORKS[name]), config)
    if name == "cp_mobile":  # a hundred segments of sound say no more than three
        task.evaluation_sets = {"toy": list(task.evaluation_sets["toy"])[:3]}  # type: ignore[misc, index]
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build(name, **NETWORKS[name])
        if name != "catanet":  # untrained classifiers are alike: each prefers another class
            *_, bias = model.parameters()
            bias.data.view(-1)[seed] += 100
        models.append(model)
    counts: list[int] = []
    together = task.evaluate_all(models, counts.append)
    assert together == [task.evaluate(model) for model in models]
    assert together[0] != together[1], "the networks are too alike for this test"
    assert sum(counts) == sum(len(samples) for samples in task.evaluation_sets.values())
