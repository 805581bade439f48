"""Lengths in epochs beside lengths in steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdp.config import Config, DynamicConfig, RoundConfig, TrainConfig
from kdp.config.compose import load_config
from kdp.errors import KdpError
from kdp.stages.settings import training_settings
from tests.runs import config, config_file

SECTIONS = {
    TrainConfig: {"epochs": 9},
    RoundConfig: {"pruning_ratio": 0.3},
    DynamicConfig: {"end_epoch": 3},
}
PAIRS = [
    (section, steps, epochs) for section in SECTIONS for steps, epochs in section.epoch_keys.items()
]


@pytest.mark.parametrize(
    ("samples", "batch_size", "epochs", "steps"),
    [
        (17125, 64, 150, 40200),
        (16551, 64, 150, 38850),
        (205, 8, 20, 520),
        (3, 8, 2, 2),
        (100, 10, 0.5, 5),
        (100, 10, 0.001, 1),
    ],
)
def test_an_epoch_counts_its_last_batch(
    samples: int, batch_size: int, epochs: float, steps: int
) -> None:
    settings = TrainConfig(epochs=epochs, batch_size=batch_size).in_steps(samples)
    assert (settings.steps, settings.epochs) == (steps, epochs)


@pytest.mark.parametrize(
    ("key", "epochs", "steps"),
    [
        ("warmup_steps", 3, 30),
        ("warmup_steps", 0, 0),
        ("milestones", [1, 2.5], [10, 25]),
        ("decay_steps", 2, 20),
        ("validate_every", 1, 10),
        ("patience", 100, 1000),
        ("checkpoint_every", 0.5, 5),
        ("log_every", 0.1, 1),
    ],
)
def test_every_length_of_a_training_may_be_in_epochs(key: str, epochs: Any, steps: Any) -> None:
    given = {"steps": 90, "batch_size": 2, TrainConfig.epoch_keys[key]: epochs}
    assert getattr(TrainConfig.model_validate(given).in_steps(20), key) == steps


def test_a_pruning_schedule_may_be_in_epochs() -> None:
    given = {"start_epoch": 1, "end_epoch": 4, "period_epochs": 0.5}
    settings = DynamicConfig.model_validate(given).in_steps(epoch=10)
    assert (settings.start_step, settings.end_step, settings.period) == (10, 40, 5)


@pytest.mark.parametrize("given", [{"start_epoch": 4}, {"start_step": 30}, {"start_step": 31}])
def test_a_pruning_schedule_must_end_after_its_start(given: dict[str, Any]) -> None:
    with pytest.raises((KdpError, ValidationError), match=r"must be after|pruning ends at step 30"):
        DynamicConfig.model_validate({**given, "end_epoch": 3}).in_steps(epoch=10)


@pytest.mark.parametrize(("section", "steps", "epochs"), PAIRS)
def test_a_length_in_both_units_is_rejected(section: Any, steps: str, epochs: str) -> None:
    values = ([5], [2]) if steps == "milestones" else (5, 2)
    given = {**SECTIONS[section], steps: values[0], epochs: values[1]}
    with pytest.raises(ValidationError, match=f"give {steps} or {epochs}, and null for the other"):
        section.model_validate(given)
    assert section.model_validate({**given, steps: None}).uses_epochs


@pytest.mark.parametrize(
    ("section", "given", "key"),
    [
        (TrainConfig, {"lr": 1}, "steps or epochs"),
        (TrainConfig, {"steps": None}, "steps or epochs"),
        (DynamicConfig, {"start_epoch": 1}, "end_step or end_epoch"),
    ],
)
def test_a_missing_length_names_both_keys(section: Any, given: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=f"give {key}"):
        section.model_validate(given)


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs"),
    [
        (["train.epochs=5"], None, 5),
        (["train.steps=7"], 7, None),
        (["train.epochs=5", "train.steps=null"], None, 5),
        (["train.epochs=null"], 6, None),
    ],
)
def test_an_override_replaces_the_length_of_the_file(
    tmp_path: Path, overrides: list[str], steps: int | None, epochs: float | None
) -> None:
    train = load_config(config_file(tmp_path), overrides).train
    assert (train.steps, train.epochs) == (steps, epochs)


@pytest.mark.parametrize("section", ["train", "finetune"])
def test_overrides_in_both_units_are_rejected(tmp_path: Path, section: str) -> None:
    with pytest.raises(KdpError, match=f"{section}: give steps or epochs, and null for the other"):
        load_config(config_file(tmp_path), [f"{section}.steps=3", f"{section}.epochs=2"])


@pytest.mark.parametrize("epochs", [0, -1, float("inf"), float("nan"), 1e7, "many"])
def test_a_number_of_epochs_is_positive_and_finite(epochs: Any) -> None:
    with pytest.raises(ValidationError, match="epochs"):
        TrainConfig.model_validate({"epochs": epochs})


def test_more_steps_than_any_training_are_refused() -> None:
    with pytest.raises(KdpError, match="epochs: 1e\\+06 epochs are 10,000,000,000 steps"):
        TrainConfig(epochs=1e6, batch_size=1).in_steps(10_000)


def test_a_record_of_epochs_is_read_again(tmp_path: Path) -> None:
    train = {"epochs": 3, "warmup_epochs": 0, "validate_every_epochs": 1}
    once = config(tmp_path, train=train)
    assert Config.model_validate(once.plain()) == once


def test_the_settings_of_a_training_in_steps_are_those_of_earlier_versions(tmp_path: Path) -> None:
    settings = training_settings(config(tmp_path).plain(), "train")
    assert not [key for key in settings if "epoch" in key]
    assert (settings["train.warmup_steps"], settings["train.milestones"]) == (0, [])
