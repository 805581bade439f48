"""A comparison as rows, and the rows as text for people and for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdp.serialize import json_text
from kdp.stages.compare.compare import Column, Comparison

_SHARE = ("%", 2, 100)
_METRIC_FORMATS = {
    "psnr": ("dB", 2, 1),
    "accuracy": _SHARE,
    "macro_accuracy": _SHARE,
    "clip_macro_accuracy": _SHARE,
}
"""Unit, digits and factor of a metric; those not here are plain numbers with four digits."""
_PARTS = ("class ", "device ")
"""What the metric of a part of the samples begins with: a share of right answers."""

_WEIGHTS = "bytes of the parameters; of an ONNX file those of all its constants; kB = 10^3 bytes"

_LABEL, _CELL = 12, 17
"""Characters a row's title and a value with its relation need; narrower, cells break in two."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what is measured.
        unit: of the values.
        digits: shown after the point.
        values: one per column.
        relation: how the other columns are related to the first.
        how: what counted or judged, and on what input.
    """

    name: str
    unit: str
    digits: int
    values: list[float]
    relation: Literal["ratio", "difference", "none"] = "ratio"
    how: str = ""

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def relative(self) -> list[float | None]:
        """Each value over, or minus, the first; None where that has no meaning."""
        return [self._relate(value) for value in self.values]

    def _relate(self, value: float) -> float | None:
        first = self.values[0]
        if self.relation == "none" or not (math.isfinite(value) and math.isfinite(first)):
            return None
        if self.relation == "difference":
            return value - first
        return value / first if first else None


def rows(comparison: Comparison) -> list[Row]:
    """The lines of the table: quality first, then size, then speed."""
    return [*_quality_rows(comparison), *_cost_rows(comparison)]


def notes(comparison: Comparison) -> list[str]:
    """Which file is which, and how the numbers were measured; one line each."""
    sets = ", ".join(f"{name} {count}" for name, count in comparison.samples.items())
    return [
        *(_file_note(i, column) for i, column in enumerate(comparison.columns, 1)),
        f"quality: {comparison.protocol}; samples: {sets}",
        *(f"{row.name}: {row.how}" for row in _cost_rows(comparison) if row.how),
        "in brackets: relative to the first column (quality: the difference); MB = 10^6 bytes",
    ]


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the table and the notes."""
    console = console or Console()
    for shown in _tables(len(comparison.columns), console.width):
        fits = _LABEL + _CELL * len(shown) <= console.width
        console.print(_table(comparison, shown, no_wrap=fits))
    for note in notes(comparison):
        console.print(note, highlight=False, soft_wrap=True, markup=False)


def _tables(columns: int, width: int) -> list[list[int]]:
    """Which columns stand together: where not all fit, each table begins with the first."""
    others = max(1, (width - _LABEL) // _CELL - 1)
    starts = range(1, max(2, columns), others)
    return [[0, *range(start, min(columns, start + others))] for start in starts]


def _table(comparison: Comparison, shown: Sequence[int], no_wrap: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    headers = _headers(comparison)
    for i in shown:
        header = headers[i].replace("_", "\n")
        table.add_column(header, justify="right", no_wrap=no_wrap, overflow="fold")
    for row in rows(comparison):
        cells = _cells(row)
        table.add_row(escape(row.title.replace("_", " ")), *(cells[i] for i in shown))
    return table


def to_markdown(comparison: Comparison) -> str:
    """A table and a list of notes."""
    lines = [["", *_headers(comparison)], ["---", *["---:"] * len(comparison.columns)]]
    lines += [[row.title, *_cells(row)] for row in rows(comparison)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + "\n" + "".join(f"- {note}\n" for note in notes(comparison))


def to_csv(comparison: Comparison) -> str:
    """One line per measure: its values in full, and their relations to the first."""
    labels = [column.label for column in comparison.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    relative = [f"{label} relative" for label in labels]
    writer.writerow(["measure", "unit", *labels, "relation", *relative, "how"])
    for row in rows(comparison):
        related = ["" if value is None else value for value in row.relative]
        writer.writerow([row.name, row.unit, *row.values, row.relation, *related, row.how])
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """Everything measured, and the rows of the table."""
    content = asdict(comparison)
    content["rows"] = [{**asdict(row), "relative": row.relative} for row in rows(comparison)]
    return json_text(content)


WRITERS: dict[str, Callable[[Comparison], str]] = {
    "csv": to_csv,
    "json": to_json,
    "md": to_markdown,
}
"""File formats of a comparison."""


def _quality_rows(comparison: Comparison) -> list[Row]:
    found = []
    columns = comparison.columns
    for name, metrics in columns[0].quality.items():
        how = f"{comparison.protocol}; {comparison.samples[name]} samples"
        for metric in metrics:
            values = [column.quality[name][metric] for column in columns]
            found.append(_quality_row(name, metric, values, how))
    return found


def _quality_row(name: str, metric: str, values: list[float], how: str) -> Row:
    if " as " in metric:  # an entry of a confusion matrix
        return Row(f"{name} {metric}", "", 0, values, "none", how)
    if metric.startswith(_PARTS):
        return Row(f"{name} {metric}", "%", 1, [100 * v for v in values], "difference", how)
    unit, digits, factor = _METRIC_FORMATS.get(metric, ("", 4, 1))
    scaled = [value * factor for value in values]
    return Row(f"{name} {metric.upper()}", unit, digits, scaled, "difference", how)


def _cost_rows(comparison: Comparison) -> list[Row]:
    columns, size = comparison.columns, _times(comparison.input_shape)
    counted, by_thop = (
        f"{counter}; input {size}" for counter in (comparison.counter, comparison.module_counter)
    )
    times = [column.latency for column in columns]
    timed = (
        f"median of {times[0].runs} runs, taken in turn after {comparison.warmup} to warm up; "
        f"input {_times(comparison.latency_shape)}; {comparison.device}"
    )
    spread = "interquartile range of the runs"
    return [
        Row("parameters", "", 0, [c.parameters for c in columns]),
        Row("non-zero", "", 0, [c.nonzero for c in columns]),
        Row("weights", "kB", 1, [c.weight_bytes / 1e3 for c in columns], how=_WEIGHTS),
        Row("MACs, all", "G", 4, [c.macs / 1e9 for c in columns], how=counted),
        Row("MACs, modules", "G", 4, [c.module_macs / 1e9 for c in columns], how=by_thop),
        Row("FLOPs", "G", 4, [2 * c.macs / 1e9 for c in columns], how="2 x MACs, all"),
        Row("file", "MB", 3, [c.file_bytes / 1e6 for c in columns]),
        Row("latency", "ms", 2, [t.median for t in times], how=timed),
        Row("latency spread", "ms", 2, [t.spread for t in times], "none", spread),
        Row("rate", "fps", 1, [1e3 / t.median for t in times], how="1 / latency"),
    ]


def _file_note(number: int, column: Column) -> str:
    precision = "" if column.precision == "fp32" else f" ({column.precision})"
    return f"{number}: {column.path}{precision}"


def _headers(comparison: Comparison) -> list[str]:
    return [f"{i}: {column.label}" for i, column in enumerate(comparison.columns, 1)]


def _cells(row: Row) -> list[str]:
    cells = []
    for i, (value, relative) in enumerate(zip(row.values, row.relative, strict=True)):
        text = f"{value:,.{row.digits}f}"
        if i and relative is not None:
            sign = f"{relative:.2f}x" if row.relation == "ratio" else f"{relative:+.{row.digits}f}"
            text += f" ({sign})"
        cells.append(text)
    return cells


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
