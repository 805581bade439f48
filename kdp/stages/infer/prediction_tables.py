"""The table of `kdp infer` as text: for people, CSV, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from kdp.errors import KdpError, suggest
from kdp.serialize import csv_of_mappings, json_text, table_format
from kdp.stages.infer.request import InferRequest
from kdp.stages.tables import plain_table
from kdp.tasks.predictor import TableFormat
from kdp.text import markdown

Rows = Sequence[tuple[Path, Any]]
"""Every file with its prediction."""
PRINTED = "table"
"""The format for people."""


def to_csv(rows: Rows) -> str:
    """One line per file."""
    return csv_of_mappings(_plain(rows))


def to_json(rows: Rows) -> str:
    """A list with one object per file."""
    return json_text(_plain(rows))


def to_markdown(rows: Rows) -> str:
    """A table with one line per file."""
    head, *body = _cells(rows)
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(map(markdown, line))} |\n" for line in lines)


FORMATS = {"csv": TableFormat(to_csv), "json": TableFormat(to_json), "md": TableFormat(to_markdown)}
"""Formats of every family, by name and by the extension of a file."""


def show(rows: Rows, console: Console | None = None) -> None:
    """Print a table with one line per file."""
    head, *body = _cells(rows)
    table = plain_table()
    for name in head:
        table.add_column(name, overflow="fold")
    for cells in body:
        table.add_row(*cells)
    (console or Console()).print(table)


def choose_format(request: InferRequest, own: Mapping[str, TableFormat]) -> TableFormat | None:
    """The format of the table; None for the one that people read, and for lines of JSON.

    Args:
        request: `format`, `output` and `headless` are read.
        own: formats that only the family has. They go into files of any name; the extension decides
            between the others.

    Raises:
        KdpError: the format is unknown, or something else that is requested contradicts it.
    """
    name, output = request.format, request.output
    known = {**FORMATS, **own}
    if name is not None and name not in (PRINTED, *known):
        raise KdpError(f"there is no format {name!r} of tables; {suggest(name, (PRINTED, *known))}")
    if output is None:
        if request.headless and name is not None:
            raise KdpError("--headless prints lines of JSON: leave out --format, or add --output")
        return known.get(name or PRINTED)
    if name is not None and name in own:
        return own[name]
    extension = table_format(output)
    if name not in (None, extension):
        raise KdpError(f"--format {name} does not fit {output}, a name for {extension}")
    return FORMATS[extension]


def _plain(rows: Rows) -> list[dict[str, Any]]:
    return [{"file": str(file), **prediction.plain()} for file, prediction in rows]


def _cells(rows: Rows) -> list[list[str]]:
    """The names of the columns, then each row, as text."""
    plain = _plain(rows)
    return [list(plain[0]), *([str(value) for value in row.values()] for row in plain)]
