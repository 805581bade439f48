"""Experiments as a table: results, and the settings that differ between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from kdp.stages.experiments.varied import Settings, short_keys
from kdp.stages.tables import plain_table, with_unit

_SHOWN = ("output.name", "experiments.notes")
"""Settings that the id and the notes show already."""
_WIDEST = 24
"""Characters of a setting, such as a path, before it is folded."""


@dataclass(frozen=True)
class _Column:
    title: str
    cells: Sequence[str]
    options: dict[str, Any] = field(default_factory=dict)


def tables(
    rows: Sequence[dict[str, Any]], settings: Sequence[Settings], console: Console
) -> list[Table]:
    """Results and settings side by side, or the settings in further tables where that is too wide.

    Args:
        rows: at least one.
        settings: of each row, all with the same keys.
        console: its width decides.
    """
    results, shown = _result_columns(rows), _setting_columns(settings)
    both = _table([*results[:-1], *shown, results[-1]])
    if _fits(both, console):
        return [both]
    split_tables = [_table(results)]
    while shown:
        counts = range(len(shown), 1, -1)
        fitting = (n for n in counts if _fits(_table([results[0], *shown[:n]]), console))
        count = next(fitting, 1)
        split_tables.append(_table([results[0], *shown[:count]]))
        shown = shown[count:]
    return split_tables


def cell(value: Any) -> str:
    """A value of a configuration or a result; empty for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _result_columns(rows: Sequence[dict[str, Any]]) -> list[_Column]:
    """The ids first, which are never wrapped, so that they can be copied; the notes last."""
    metrics = sorted({row["primary_metric"] for row in rows})
    ids = [row["exp_id"] for row in rows]
    number = {"justify": "right", "no_wrap": True}
    pruned = any(row["sparsity"] for row in rows)
    sparsity = [_percent(row["sparsity"]) for row in rows]
    return [
        _Column("id", ids, {"no_wrap": True, "min_width": max(map(len, ids))}),
        _Column(
            metrics[0].replace("_", "\n") if len(metrics) == 1 else "quality",
            [_quality(row, named=len(metrics) > 1) for row in rows],
        ),
        _Column("parameters", [f"{row['params']:,}" for row in rows], number),
        _Column("MACs", [with_unit(row["MACs"]) for row in rows], number),
        _Column("size", [with_unit(row["bytes"], "B") for row in rows], number),
        *([_Column("sparsity", sparsity, number)] if pruned else []),
        _Column("step", [cell(row["pruning_step"]) for row in rows], number),
        _Column("notes", [row["notes"] for row in rows], {"overflow": "fold"}),
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _quality(row: dict[str, Any], named: bool) -> str:
    text = "" if row["value"] is None else f"{row['value']:.4f}"
    return f"{text} {row['primary_metric']}" if named else text


def _setting_columns(settings: Sequence[Settings]) -> list[_Column]:
    keys = [key for key in settings[0] if key not in _SHOWN]
    options = {"overflow": "fold", "max_width": _WIDEST}
    columns = []
    for key, title in zip(keys, short_keys(keys), strict=True):
        cells = [cell(own[key]) for own in settings]
        # Numbers and words are not folded, or any number of columns would seem to fit.
        width = min(_WIDEST, max(map(len, [*cells, *title.split("_")])))
        title = title.replace("_", "\n").replace(".", ".\n")
        columns.append(_Column(title, cells, {**options, "min_width": width}))
    return columns


def _table(columns: Sequence[_Column]) -> Table:
    table = plain_table()
    for column in columns:
        table.add_column(column.title, **column.options)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table


def _fits(table: Table, console: Console) -> bool:
    # Measured for a wide console: no width is ever above that of the console it is measured for.
    wide = console.options.update(width=1_000_000)
    return Measurement.get(console, wide, table).minimum <= console.width
