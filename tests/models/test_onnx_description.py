"""The description inside an ONNX file is compared with its type before anything reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdp.errors import KdpError
from kdp.models.onnx_file import PROPERTY, _about

ABOUT = {
    "arch": {"name": "mask_classifier", "args": {"channels": [4]}},
    "parameters": 10,
    "nonzero": 9,
    "source": {"name": "a.pth", "sha256": "0"},
}


def test_a_description_is_read() -> None:
    assert _about({PROPERTY: json.dumps(ABOUT)}, "a.onnx") == ABOUT


@pytest.mark.parametrize(
    "change",
    [
        {"arch": None},
        {"arch": "x"},
        {"arch": {"name": "catanet"}},
        {"arch": {"name": "catanet", "args": [1]}},
        {"parameters": "10"},
        {"parameters": -1},
        {"nonzero": [1]},
        {"precision": 16},
        {"weight_bytes": None},
        {"source": 1},
        {"source": {"name": "a.pth"}},
        {"source": {"name": 1, "sha256": "0"}},
    ],
)
def test_a_value_of_another_type_is_named(change: dict[str, Any]) -> None:
    (key,) = change
    with pytest.raises(KdpError, match=rf"a\.onnx is damaged at its description.{key}"):
        _about({PROPERTY: json.dumps({**ABOUT, **change})}, "a.onnx")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000])
def test_a_description_that_is_none_is_named(text: str) -> None:
    with pytest.raises(KdpError, match=r"a\.onnx"):
        _about({PROPERTY: text}, "a.onnx")
