"""The task of image classification."""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from kdp.data.folders import LabelledImage
from kdp.data.images import ImageArray
from kdp.errors import KdpError
from kdp.models.mask_classifier import CLASSES
from tests.models.face_mask_helpers import SMALL, lively, task_of


def test_networks_with_different_classes_have_different_tasks(tmp_path: Path) -> None:
    task, swapped = task_of(tmp_path), task_of(tmp_path, classes=CLASSES[::-1])
    assert task.metric_protocol != swapped.metric_protocol
    assert "with_mask, without_mask" in task.metric_protocol
    assert len(task.evaluation_sets["toy"]) == 40
    with pytest.raises(KdpError, match="the network has without_mask, with_mask; use samples"):
        _ = swapped.evaluation_sets


def test_images_are_read_one_at_a_time(tmp_path: Path) -> None:
    held: list[weakref.ref[ImageArray]] = []

    def read(number: int) -> ImageArray:
        assert sum(image_ref() is not None for image_ref in held) <= 1
        image = np.full((64, 64, 3), number, np.uint8)
        held.append(weakref.ref(image))
        return image

    task, model = task_of(tmp_path), lively(**SMALL)
    images = [LabelledImage(f"{i}", i % 2, partial(read, i)) for i in range(70)]
    task.__dict__["evaluation_sets"] = {"toy": images}
    assert sum(v for k, v in task.evaluate(model)["toy"].items() if " as " in k) == 70
    assert len(task.predictions(model)) == 70
    assert len(dict(task.comparison_images([model, model], ["a", "b"]))) >= 35
    whole = [np.full((64, 64, 3), i, np.uint8) for i in range(70)]
    assert torch.equal(task.predict(model, whole), task.predict(model, iter(whole)))
