"""`distill: {alpha: ..., temperature: ...}`, the short form of logit distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdp.config import DistillConfig
from kdp.config.compose import load_config
from kdp.errors import KdpError

KD = Path("rep_mobile_kd.yml")


@pytest.mark.parametrize(
    ("short", "task_weight", "temperature"),
    [
        ({"alpha": 0.6, "temperature": 3}, 0.6, 3),
        ({"alpha": 0.02}, 0.02, 4),
        ({"temperature": 2}, 0.5, 2),
        ({"alpha": 0, "temperature": 1}, 0, 1),
    ],
)
def test_it_stands_for_a_weight_and_a_loss(
    short: dict[str, Any], task_weight: float, temperature: float
) -> None:
    distill = DistillConfig.model_validate(short)
    assert distill.task_weight == task_weight
    assert distill.losses["logits"].weight == pytest.approx(1 - task_weight)
    assert distill.losses["logits"].options == {"temperature": temperature}
    assert list(distill.losses) == ["logits"]
    assert DistillConfig.model_validate(distill.model_dump()) == distill


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.6, "losses": {"fakd": {}}}, "alpha stand for .* leave out losses"),
        ({"temperature": 3, "task_weight": 1}, "leave out task_weight"),
        ({"alpha": 1.5}, "alpha"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_it_is_not_mixed_with_the_long_form(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DistillConfig.model_validate(wrong)


def test_shipped_recipes_take_it_on_the_command_line() -> None:
    distill = load_config(KD, ["distill.alpha=0.6", "distill.temperature=3"]).distill
    assert distill is not None
    assert distill.task_weight == 0.6
    assert distill.losses["logits"].options == {"temperature": 3}
    with pytest.raises(KdpError, match="leave out losses"):
        load_config(KD, ["distill.losses.logits.weight=1"])
