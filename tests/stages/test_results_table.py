"""`results.csv` after runs that were killed while they recorded."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from kdp.serialize import json_text
from kdp.stages.experiments.results import COLUMNS, FILES, INFO, add_row

NOTES = ["plain", 'two\nlines, "quoted"', "=größe"]


def experiment(folder: Path, number: int) -> dict[str, Any]:
    """A complete experiment without a row in the table; its `info.json`."""
    info: dict[str, Any] = dict.fromkeys(COLUMNS, number)
    info |= {"exp_id": f"tiny-{number}", "timestamp": f"2030-01-0{number + 1}", "config": "tiny"}
    info |= {"primary_metric": "accuracy", "sha256": "0", "device": "cpu", "threads": 1}
    info |= {"macs": {"count": 1000 + number}, "bytes": {"fp32": 4}, "notes": NOTES[number % 3]}
    path = folder / info["exp_id"]
    path.mkdir()
    for name in FILES:
        (path / name).touch()
    (path / INFO).write_text(json_text(info))
    return info


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A table of three experiments."""
    for number in range(3):
        add_row(tmp_path, experiment(tmp_path, number))
    return tmp_path / "results.csv"


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_that_was_cut_anywhere_is_finished(recorded: Path) -> None:
    whole = recorded.read_bytes()
    info = experiment(recorded.parent, 3)
    add_row(recorded.parent, info)
    expected = recorded.read_bytes()
    for length in (*range(0, len(whole), 7), *range(len(whole) - 9, len(whole))):
        recorded.write_bytes(whole[:length])
        add_row(recorded.parent, info)
        assert recorded.read_bytes() == expected, whole[:length]


def test_experiments_without_a_line_are_added(recorded: Path) -> None:
    lines = recorded.read_bytes()
    recorded.unlink()
    add_row(recorded.parent, experiment(recorded.parent, 3))
    assert recorded.read_bytes().startswith(lines)
    assert [row["exp_id"] for row in rows(recorded)] == [f"tiny-{number}" for number in range(4)]


@pytest.mark.parametrize("torn", ["tiny-9,2030", 'tiny-9,"2030', "notes of mine", "t\u00e4ny-0"])
def test_an_unfinished_line_of_no_experiment_is_ended(recorded: Path, torn: str) -> None:
    with recorded.open("a") as file:
        file.write(torn)
    add_row(recorded.parent, experiment(recorded.parent, 3))
    assert [row["exp_id"] for row in rows(recorded)][-1] == "tiny-3"
    assert torn in recorded.read_text()


def test_what_somebody_added_stays(recorded: Path) -> None:
    edited = recorded.read_text().replace("plain", "best so far") + "mine,,,,,,,,,,\n"
    recorded.write_text(edited)
    add_row(recorded.parent, experiment(recorded.parent, 3))
    assert recorded.read_text().startswith(edited)
    assert len(rows(recorded)) == 5


def test_a_folder_that_is_no_experiment_gets_no_line(recorded: Path) -> None:
    (recorded.parent / "tiny-8").mkdir()
    (recorded.parent / "tiny-8" / INFO).write_text("{}")
    add_row(recorded.parent, experiment(recorded.parent, 3))
    assert len(rows(recorded)) == 4
