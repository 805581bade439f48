"""Schedules of the weights of losses."""

from __future__ import annotations

from typing import Any

import pytest

from kdp.config import LossConfig
from kdp.distillation.schedules import weight_factor


@pytest.mark.parametrize(
    ("schedule", "values"),
    [("constant", (1, 1, 1)), ("linear", (1, 0.75, 0)), ("cosine", (1, 0.853553, 0))],
)
def test_schedules_fall_from_one_to_their_end(schedule: str, values: tuple[float, ...]) -> None:
    config = LossConfig.model_validate({"schedule": schedule})
    measured = [weight_factor(config, step, 40) for step in (0, 10, 40)]
    assert measured == pytest.approx(values, abs=1e-6)


def three_phases(epoch: int) -> float:
    """The lambda of the YOLO11 study, as published."""
    if epoch < 40:
        return 2.0 * (1 - epoch / 40)
    return 0.3 * (1 - (epoch - 40) / 60) if epoch < 100 else 0.05


def test_piecewise_matches_the_published_phases_at_every_epoch() -> None:
    config = LossConfig(schedule="piecewise")
    measured = [weight_factor(config, epoch, 150) for epoch in range(151)]
    assert measured == pytest.approx([three_phases(epoch) for epoch in range(151)], abs=1e-12)
    effective = {epoch: 0.75 * measured[epoch] for epoch in (0, 20, 40, 70, 100, 150)}
    published = {0: 1.5, 20: 0.75, 40: 0.225, 70: 0.1125, 100: 0.0375, 150: 0.0375}
    assert effective == pytest.approx(published)


def test_phases_can_be_configured() -> None:
    phases = [{"until": 0.5, "start": 4, "end": 2}, {"until": 1, "start": 1, "end": 0}]
    config = LossConfig.model_validate({"schedule": "piecewise", "phases": phases})
    assert [weight_factor(config, step, 8) for step in (0, 2, 4, 6, 8)] == [4, 3, 1, 0.5, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "piecewise", "phases": [{"until": 0.5, "start": 1, "end": 1}]}, "end at 1"),
        ({"phases": [{"until": 1, "start": 1, "end": 1}]}, "belong to the schedule piecewise"),
    ],
)
def test_phases_with_a_gap_are_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig.model_validate(changes)


@pytest.mark.parametrize("key", ["until_step", "until_epoch"])
def test_phases_may_end_at_steps_or_epochs(key: str) -> None:
    unit = 10 if key == "until_step" else 1
    phases = [(40, 2.0, 0.0), (100, 0.3, 0.0), (150, 0.05, 0.05)]
    given = [{key: end * unit, "start": a, "end": b} for end, a, b in phases]
    config = LossConfig.model_validate({"schedule": "piecewise", "phases": given})
    shares = config.in_shares(steps=1500, epoch=10)
    measured = [weight_factor(shares, 10 * epoch, 1500) for epoch in range(151)]
    assert measured == pytest.approx([three_phases(epoch) for epoch in range(151)], abs=1e-12)


def test_phases_beyond_the_end_of_a_run_are_cut() -> None:
    phases = [{"until_epoch": 20, "start": 1.0, "end": 0.0}]
    config = LossConfig.model_validate({"schedule": "piecewise", "phases": phases})
    short, long = (config.in_shares(steps, epoch=5) for steps in (50, 200))
    assert weight_factor(short, 49, 50) == pytest.approx(0.51)
    assert weight_factor(long, 150, 200) == 0.0


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{}], "give one of until, until_step and until_epoch"),
        ([{"until": 1, "until_step": 5}], "give one of until"),
        ([{"until_step": 5}, {"until_epoch": 9}], "of one kind"),
        ([{"until_step": 5}, {"until_step": 5}], "must grow"),
        ([{"until": 0.5}], "end at 1"),
    ],
)
def test_ends_of_phases_must_fit_together(phases: list[dict[str, Any]], message: str) -> None:
    given = [{"start": 1, "end": 0, **phase} for phase in phases]
    with pytest.raises(ValueError, match=message):
        LossConfig.model_validate({"schedule": "piecewise", "phases": given})


def test_phases_are_recorded_as_they_are_given() -> None:
    phases = [{"until": 1.0, "start": 1.0, "end": 0.0}]
    config = LossConfig.model_validate({"schedule": "piecewise", "phases": phases})
    assert config.model_dump(mode="json")["phases"] == phases
