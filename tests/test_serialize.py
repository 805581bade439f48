"""JSON and CSV as text."""

from __future__ import annotations

import json
from pathlib import Path

from kdp.serialize import csv_of_mappings, csv_text, json_line, json_text


def test_numbers_that_json_cannot_hold_become_null() -> None:
    content = {"psnr": float("inf"), "loss": [float("nan"), 1.5]}
    assert json.loads(json_text(content)) == {"psnr": None, "loss": [None, 1.5]}


def test_paths_and_keys_are_text() -> None:
    assert json_line({1: Path("a/b"), "ok": True}) == '{"1": "a/b", "ok": true}'


def test_json_lines_have_no_line_breaks() -> None:
    assert "\n" not in json_line({"a": "two\nlines", "b": [1, 2]})


def test_csv_has_the_columns_of_every_row() -> None:
    rows = [{"name": "a", "x": 1}, {"name": "b", "y": None}]
    assert csv_of_mappings(rows) == "name,x,y\na,1,\nb,,\n"


def test_csv_quotes_separators() -> None:
    assert csv_text(["note"], [["one, two"]]) == 'note\n"one, two"\n'
