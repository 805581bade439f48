"""The images of `kdp compare --images`: nothing is cut off, right and wrong are marked."""

from __future__ import annotations

import numpy as np
import pytest

from kdp.tasks.captions import BLACK, RIGHT, WRONG, caption_strip
from kdp.tasks.classification.captions import captioned
from kdp.tasks.detection.panels import MISSED, judge, side_by_side
from kdp.tasks.labelled_boxes import LabelledBox
from kdp.tasks.lettering import Color
from kdp.tasks.super_resolution.crops import CROP, ZOOM, comparison


def box(left: int, label: int, probability: float = 1.0) -> LabelledBox:
    return LabelledBox((left, 40, 20, 20), label, f"class {label}", probability)


def has(image: np.ndarray, color: Color) -> bool:
    """Whether a colour occurs, within 60 of 255: thin text is blended with its background."""
    return bool((abs(image.astype(int) - color) < 60).all(-1).any())


@pytest.mark.parametrize("text", ["short", "a label that is far longer than its panel is wide"])
def test_a_caption_fits_its_strip(text: str) -> None:
    strip = caption_strip([(text, BLACK)], 200)
    assert (strip < 200).any()
    assert (strip[:, -2:] == 255).all()


def test_a_wrong_class_is_red_and_a_correct_one_green() -> None:
    image = np.full((40, 20, 3), 90, np.uint8)
    shown = captioned(image, "cat", ["a", "b"], [("cat", 0.9), ("dog", 0.8)], "error 1 of 1")
    right = captioned(image, "cat", ["a"], [("cat", 0.9)], "error 1 of 1")
    assert has(shown, RIGHT)
    assert has(shown, WRONG)
    assert not has(right, WRONG)


def test_the_whole_image_is_shown_above_its_caption() -> None:
    image = np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3)
    shown = captioned(image, "cat", [], [], "")
    assert shown.shape[0] > 2 * shown.shape[1]  # a tall image stays tall


def test_a_true_box_matches_one_detection_of_its_class() -> None:
    truth = [box(0, 0), box(60, 1)]
    correct, detected = judge(truth, [box(1, 0, 0.9), box(2, 0, 0.8), box(60, 0, 0.7)])
    assert correct == [True, False, False]
    assert detected == [True, False]


def test_correct_wrong_and_missed_boxes_have_their_colors() -> None:
    image = np.full((100, 100, 3), 90, np.uint8)
    detections = [[box(0, 0)], [box(60, 0)], [box(0, 0), box(60, 1)]]
    panels = side_by_side(image, [box(0, 0)], ["a", "b", "c"], detections, "image 1 of 3")
    a, b, c = np.split(panels, 3, axis=1)
    colors = [[has(panel, color) for color in (RIGHT, WRONG, MISSED)] for panel in (a, b, c)]
    assert colors == [[True, False, False], [False, True, True], [True, True, False]]


def test_crops_are_shown_whole_with_a_caption_below() -> None:
    hr = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    lr = hr[::2, ::2]
    row = comparison(lr, {"a": hr, "b": hr}, hr, 2, "image 1 of 1")
    height = row.shape[0] - CROP * ZOOM
    assert 0 < height < CROP
    assert row.shape[1] >= 4 * CROP * ZOOM
