"""The face-mask classifier: its arguments, parameter counts and shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.stages.train.train import train
from tests.conftest import ROOT
from tests.models.face_mask_helpers import groups_of, parameters, settings
from tests.runs import SHORT


@pytest.mark.parametrize(
    ("channels", "count"), [((32, 64, 128), 93954), ((24, 48, 96), 53186), ((8, 16, 32), 6210)]
)
def test_networks_have_the_expected_parameter_counts(channels: tuple[int, ...], count: int) -> None:
    assert parameters(build("mask_classifier", channels=channels)) == count


def test_the_toy_data_can_be_learned(tmp_path: Path) -> None:
    longer = {**SHORT, "batch_size": 16, "steps": 60, "lr": 0.01, "validate_every": 60}
    train(settings(tmp_path, distill=None, train=longer))
    metrics = load(tmp_path / "w/tiny.pth").record.metrics["toy"]
    assert metrics["accuracy"] > 0.8


def test_six_blocks_have_six_groups() -> None:
    model = build("mask_classifier", channels=[4] * 6)
    assert [group.units for group in groups_of(model)] == [4] * 6


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"chanels": [4]}, "no argument 'chanels'; did you mean 'channels'"),
        ({"classes": "masked"}, "classes='masked': 'str' instances are not allowed"),
        ({"classes": ["yes"]}, "classes must be 2 names or more"),
        ({"classes": [True, False]}, "Input should be a valid string"),
        ({"classes": ["a", ""]}, "classes must be 2 names or more"),
        ({"classes": ["a", "b", "a"]}, "classes must differ"),
        ({"image_size": 7}, "image_size must be a whole number >= 8, not 7"),
        ({"image_size": "128"}, "image_size must be a whole number >= 8, not '128'"),
        ({"image_size": 64.0}, "image_size must be a whole number"),
        ({"image_size": True, "channels": [4]}, "image_size must be a whole number"),
        ({"channels": []}, "channels must be one number or more"),
    ],
)
def test_invalid_arguments_are_rejected(args: dict[str, Any], message: str) -> None:
    with pytest.raises(KdpError, match=f"cannot build 'mask_classifier': .*{message}"):
        build("mask_classifier", **args)


@pytest.mark.parametrize(
    ("name", "count"),
    [("face_mask", 93954), ("face_mask_small", 6210), ("face_mask_pruned_70", 8556)],
)
def test_shipped_weights_have_the_expected_size_and_accuracy(name: str, count: int) -> None:
    model, _, artifact = load_network(ROOT / "weights" / f"{name}.pth")
    assert parameters(model) == count
    assert artifact.record.metrics["val"]["accuracy"] >= 0.94
