"""Learning rate schedules."""

from __future__ import annotations

from typing import Any

import pytest

from kdp.config import TrainConfig
from kdp.training.schedule import learning_rate


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"schedule": "cosine"}, {0: 1.0, 25: 0.853553, 50: 0.5, 75: 0.146447}),
        ({"schedule": "cosine", "warmup_steps": 20}, {0: 0.05, 19: 1.0, 20: 1.0, 60: 0.5}),
        (
            {"schedule": "multistep", "milestones": [30, 60]},
            {29: 1.0, 30: 0.5, 59: 0.5, 60: 0.25, 99: 0.25},
        ),
        ({"schedule": "trapezoid"}, {0: 1.0, 80: 1.0, 90: 0.5, 99: 0.05}),
    ],
)
def test_learning_rate_schedules(changes: dict[str, Any], expected: dict[int, float]) -> None:
    chosen = TrainConfig.model_validate({"steps": 100, "lr": 1.0, **changes})
    rates = {step: learning_rate(chosen, step) for step in expected}
    assert rates == pytest.approx(expected, abs=1e-6)
