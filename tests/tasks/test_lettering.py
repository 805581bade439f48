"""Text in images."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import pytest

from kdp.data.images import ImageArray
from kdp.tasks import lettering
from kdp.tasks.captions import BLACK, caption_strip
from kdp.tasks.labelled_boxes import LabelledBox, draw_boxes
from kdp.tasks.lettering import put_text, text_size
from tests.videos import blank

WHITE = (255, 255, 255)


def drawn(text: str, scale: float = 0.7) -> ImageArray:
    canvas = np.zeros((60, 300, 3), np.uint8)
    put_text(canvas, text, (40, 35), scale, WHITE)
    return canvas


@pytest.fixture
def no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    monkeypatch.setattr(lettering, "_font_files", lambda: iter([own]))
    lettering._font_file.cache_clear()


def test_ascii_is_drawn_by_opencv() -> None:
    canvas = np.zeros((60, 300, 3), np.uint8)
    cv2.putText(canvas, "mask 0.9", (40, 35), lettering.FONT, 0.7, WHITE, 1, cv2.LINE_AA)
    assert np.array_equal(drawn("mask 0.9"), canvas)


@pytest.mark.parametrize("text", ["чашка", "κύπελλο", "žárovka", "قدح", "血小板", "ถ้วย", "🙂"])
def test_letters_of_other_alphabets_are_not_question_marks(text: str) -> None:
    assert drawn(text).any()
    assert not np.array_equal(drawn(text), drawn("?" * len(text)))
    assert not np.array_equal(drawn(text), drawn("?" * len(text.encode())))


@pytest.mark.parametrize("text", ["чашка", "血小板"])
def test_a_text_stays_within_its_size(text: str, no_other_fonts: None) -> None:
    rows, columns = np.nonzero(drawn(text).any(2))
    (width, height), below = text_size(text, 0.7)
    assert columns.min() >= 40 - 1
    assert columns.max() <= 40 + width
    assert 35 - height <= rows.min()
    assert rows.max() <= 35 + below


def test_letters_that_no_font_has_are_told_apart(no_other_fonts: None) -> None:
    assert not np.array_equal(drawn("血"), drawn("小"))


def test_boxes_and_captions_have_labels_of_any_alphabet() -> None:
    boxes = [
        draw_boxes(blank(), [LabelledBox((50, 90, 60, 60), 0, name, 0.5)], "")
        for name in ("маска", "кошка")
    ]
    assert not np.array_equal(*boxes)
    strips = [caption_strip([(name, BLACK)], 200) for name in ("маска", "кошка")]
    assert not np.array_equal(*strips)
