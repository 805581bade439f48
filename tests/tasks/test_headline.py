"""Metrics of each family that validation prints."""

from __future__ import annotations

from typing import Any

import pytest

from kdp.tasks.classification.task import Classification
from kdp.tasks.detection.task import Detection
from kdp.tasks.scenes.task import AcousticScenes
from kdp.tasks.super_resolution.task import SuperResolution
from kdp.training.report import validation_line


@pytest.mark.parametrize("task", [Classification, Detection, AcousticScenes, SuperResolution])
def test_at_most_three_metrics_with_the_primary_one_first(task: Any) -> None:
    assert task.headline_metrics[0] == task.primary_metric
    assert len(task.headline_metrics) <= 3


def test_details_of_classes_are_left_out() -> None:
    metrics = {"toy": {"accuracy": 0.5, "f1": 0.25, "mask as face": 3.0}, "real": {"accuracy": 1.0}}
    line = validation_line(7, metrics, ("accuracy", "f1"))
    assert line == "step 7: validation on toy accuracy 0.5, f1 0.25; real accuracy 1"
