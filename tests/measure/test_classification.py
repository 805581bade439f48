"""Classification metrics."""

from __future__ import annotations

import pytest
import torch

from kdp.measure.classification import confusion, summary


def test_confusion_accuracy_and_f1() -> None:
    labels, predictions = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0])
    counts = confusion(labels, predictions, 2)
    assert counts.tolist() == [[2, 1], [1, 1]]
    values = summary(counts, ["a", "b"])
    assert values["accuracy"] == pytest.approx(0.6)
    assert values["f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert values["a as b"] == 1
