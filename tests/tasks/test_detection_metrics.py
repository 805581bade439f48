"""Average precision."""

from __future__ import annotations

import pytest
import torch

from kdp.tasks.detection.metrics import Detections, average_precision


def boxes(*corners: tuple[float, ...], label: int = 0) -> Detections:
    count = len(corners)
    labels, scores = torch.full((count,), label), torch.linspace(0.9, 0.5, count)
    return Detections(torch.tensor(corners).view(-1, 4), labels, scores)


FULL, HALF = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)


@pytest.mark.parametrize(
    ("detections", "map50", "map50_95"),
    [
        (boxes(FULL, HALF), 1.0, 1.0),
        (boxes(FULL), 0.5, 0.5),
        ((boxes((0.0, 0.0, 10.0, 7.2), (20.0, 20.0, 30.0, 27.2))), 1.0, 0.5),  # IoU 0.72
        (boxes(FULL, HALF, label=1), 0.0, 0.0),
        (boxes(), 0.0, 0.0),
    ],
)
def test_average_precision_of_known_detections(
    detections: Detections, map50: float, map50_95: float
) -> None:
    measured = average_precision([detections], [boxes(FULL, HALF)], ["a", "b"])
    # Interpolation takes half a hundredth off a perfect curve.
    assert measured["map50"] == pytest.approx(map50, abs=0.01)
    assert measured["map50_95"] == pytest.approx(map50_95, abs=0.01)
    assert "ap b" not in measured, "there is none to find"
