"""Curves on disk."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kdp.training.curves import Curves
from kdp.training.loop import fit
from tests.training.helpers import curve_rows, toy_job


@pytest.mark.usefixtures("plots")
def test_curves_are_written_as_jsonl_csv_and_png(tmp_path: Path) -> None:
    fit(toy_job(tmp_path))
    steps = [row["step"] for row in curve_rows(tmp_path) if "loss" in row]
    assert steps == list(range(1, 9))
    with (tmp_path / "curves.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(curve_rows(tmp_path)) == 12
    assert {"step", "lr", "loss", "task", "toy/score"} <= table[0].keys()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_half_written_line_of_a_killed_run_is_dropped(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for step in (1, 2, 3):
        curves.add({"step": step, "loss": 1.0})
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in Curves(tmp_path, done=2).rows] == [1, 2]
    assert [row["step"] for row in Curves(tmp_path).rows] == []


@pytest.mark.parametrize(
    "damaged", [b'{"step": 2, "lo', b"\xff\x00", b"null", b'{"loss": 1}', b"3"]
)
def test_a_damaged_line_costs_no_other(tmp_path: Path, damaged: bytes) -> None:
    lines = [b'{"step": 1}', damaged, b'{"step": 3}']
    (tmp_path / "curves.jsonl").write_bytes(b"\n".join(lines))
    curves = Curves(tmp_path, done=3)
    curves.add({"step": 4})
    assert [row["step"] for row in Curves(tmp_path, done=4).rows] == [1, 3, 4]
