"""A comparison as text: a table for people, CSV, JSON and Markdown for files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from kdp.serialize import csv_text, json_text
from kdp.stages.compare.compare import Evaluation
from kdp.stages.compare.rows import ComparisonRow, comparison_rows, notes
from kdp.stages.tables import plain_table, print_line
from kdp.text import markdown

_LABEL, _CELL = 12, 17
"""Characters that a row's title and a value with its relation need; narrower cells would wrap."""


UNRELIABLE = " (!)"
"""Behind a noisy value, in place of its relation; short, so that four columns fit a terminal."""


def show(comparison: Evaluation, console: Console | None = None) -> None:
    """Print the table and the notes."""
    console = console or Console()
    for shown in _tables(len(comparison.columns), console.width):
        fits = _LABEL + _CELL * len(shown) <= console.width
        console.print(_table(comparison, shown, no_wrap=fits))
    for note in notes(comparison):
        print_line(console, note)


def to_markdown(comparison: Evaluation) -> str:
    """A table and a list of notes."""
    lines = [["", *_headers(comparison)]]
    lines += [[row.title, *_cells(row)] for row in comparison_rows(comparison)]
    head, *body = (f"| {' | '.join(map(markdown, line))} |\n" for line in lines)
    rule = f"| --- |{' ---: |' * len(comparison.columns)}\n"
    bullets = "".join(f"- {markdown(note)}\n" for note in notes(comparison))
    return head + rule + "".join(body) + "\n" + bullets


def to_csv(comparison: Evaluation) -> str:
    """One line per measurement: its raw values and their relations to the first network."""
    labels = [network.label for network in comparison.columns]
    relative = [f"{label} relative" for label in labels]
    header = ["measure", "unit", *labels, "relation", *relative, "how"]
    return csv_text(
        header,
        (
            [row.name, row.unit, *row.values, row.relation, *row.relative, row.how]
            for row in comparison_rows(comparison)
        ),
    )


def to_json(comparison: Evaluation) -> str:
    """Everything measured, and the rows of the table with raw values."""
    content = asdict(comparison)
    for column, network in zip(content["columns"], comparison.columns, strict=True):
        column["arch"] = network.arch.plain()
    content["rows"] = [row.plain() for row in comparison_rows(comparison)]
    return json_text(content)


WRITERS: dict[str, Callable[[Evaluation], str]] = {
    "csv": to_csv,
    "json": to_json,
    "md": to_markdown,
}
"""File formats of a comparison."""


def _tables(columns: int, width: int) -> list[list[int]]:
    """Which columns stand together: where not all fit, each table begins with the first."""
    others = max(1, (width - _LABEL) // _CELL - 1)
    starts = range(1, max(2, columns), others)
    return [[0, *range(start, min(columns, start + others))] for start in starts]


def _table(comparison: Evaluation, shown: Sequence[int], no_wrap: bool) -> Table:
    table = plain_table()
    table.add_column("")
    headers = _headers(comparison)
    for number in shown:
        header = headers[number].replace("_", "\n")
        table.add_column(header, justify="right", no_wrap=no_wrap, overflow="fold")
    for row in comparison_rows(comparison):
        cells = _cells(row)
        table.add_row(row.title, *(cells[number] for number in shown))
    return table


def _headers(comparison: Evaluation) -> list[str]:
    return [f"{number}: {network.label}" for number, network in enumerate(comparison.columns, 1)]


def _cells(row: ComparisonRow) -> list[str]:
    unreliable = row.unreliable or (False,) * len(row.values)
    numbers = zip(row.values, row.relative, unreliable, strict=True)
    return [
        row.scale.text(value) + (UNRELIABLE if noisy else _relation(row, relative, index))
        for index, (value, relative, noisy) in enumerate(numbers)
    ]


def _relation(row: ComparisonRow, relative: float | None, index: int) -> str:
    """In brackets; the first network is what the others are related to."""
    if index == 0 or relative is None:
        return ""
    if row.relation == "ratio":
        return f" ({relative:.2f}x)"
    return f" ({row.scale.text(relative, sign=True)})"
