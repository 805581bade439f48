"""`kdp runs`: the experiments that were kept, sorted, or two of them beside one another."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdp.errors import KdpError, suggest
from kdp.stages.experiments.store import COLUMNS, CONFIG, FILES, INFO, METRICS, RESULTS, result_of
from kdp.stages.tables import plain_table, print_line

Row = dict[str, Any]
_SHOWN = {"params": "params", "MACs": "MACs", "bytes": "bytes", "pruning_step": "step"}
_NUMBERS = ("macro_avg_acc", "params", "MACs", "bytes", "pruning_step", "value")


@dataclass(frozen=True)
class Runs:
    """What a folder of experiments holds.

    Attributes:
        rows: a line of `results.csv` each, made anew of their folders, in the order asked for.
        left_out: in words, what is there but is no whole experiment.
    """

    rows: list[Row]
    left_out: list[str]


@dataclass(frozen=True)
class Difference:
    """Two experiments; what they share is left out of `config`, and None is what one has not.

    Attributes:
        ids: of both.
        config: values of both by dotted key.
        metrics: values of both by set and metric, and what they cost.
    """

    ids: tuple[str, str]
    config: dict[str, tuple[Any, Any]]
    metrics: dict[str, tuple[Any, Any]]


def runs(folder: Path, sort: str = "timestamp", reverse: bool = False) -> Runs:
    """The experiments of a folder; those without a value in the column `sort` come last.

    Raises:
        KdpError: there is no such column.
    """
    if sort not in COLUMNS:
        raise KdpError(f"the results have no column {sort!r}; {suggest(sort, COLUMNS)}")
    rows, left_out = [], _lost(folder)
    for path in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
        try:
            rows.append(result_of(read_info(path)))
        except KdpError as error:
            left_out.append(str(error))
    given = [row for row in rows if row[sort] is not None]
    given.sort(key=lambda row: _sortable(row[sort], sort), reverse=reverse)
    return Runs(given + [row for row in rows if row[sort] is None], left_out)


def find(folder: Path, name: str) -> Path:
    """The folder of an experiment, by its id.

    Raises:
        KdpError: there is none, or it is not whole.
    """
    known = [row["exp_id"] for row in runs(folder).rows]
    if name in known:
        return folder / name
    if not known:
        raise KdpError(f"there are no experiments in {folder}")
    if (folder / name).is_dir():
        read_info(folder / name)
    raise KdpError(f"{folder} has no experiment {name!r}; {suggest(name, known)}")


def read_info(path: Path) -> dict[str, Any]:
    """The `info.json` of a whole experiment.

    Raises:
        KdpError: a file is missing, or it is not what kdp writes.
    """
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise KdpError(f"{path} is no whole experiment: it lacks {', '.join(missing)}")
    try:
        info = json.loads((path / INFO).read_text())
        result_of(info)
    except (ValueError, LookupError, TypeError) as error:
        raise KdpError(f"{path / INFO} is damaged") from error
    return dict(info)


def difference(folder: Path, first: str, second: str) -> Difference:
    """What two experiments have different, and how good they are.

    Raises:
        KdpError: there is no such experiment, or one of its files is damaged.
    """
    paths = [find(folder, name) for name in (first, second)]
    configs, metrics = ([read(path) for path in paths] for read in (_config, _metrics))
    pairs = _paired(*configs)
    changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    return Difference((first, second), changed, _paired(*metrics))


def show(found: Runs | Difference, console: Console | None = None) -> None:
    """Print a line for each experiment and what was left out, or what two have different."""
    console = console or Console()
    if isinstance(found, Difference):
        _show_difference(found, console)
        return
    console.print(_table(found.rows) if found.rows else "there are no experiments here")
    for line in found.left_out:
        print_line(console, f"left out: {line}")


def _show_difference(found: Difference, console: Console) -> None:
    """The keys that differ, then the metrics."""
    for letter, name in zip("AB", found.ids, strict=True):
        print_line(console, f"{letter}: {name}")
    for title, pairs in (("configuration", found.config), ("result", found.metrics)):
        table = plain_table()
        table.add_column(title, overflow="fold")
        table.add_column("A", overflow="fold")
        table.add_column("B", overflow="fold")
        for key, pair in pairs.items():
            table.add_row(escape(key), *(escape(_text(value)) for value in pair))
        console.print(table if pairs else f"{title}: the same")


def _lost(folder: Path) -> list[str]:
    """The lines of the table whose folder is gone."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        names = [row.get("exp_id") for row in csv.DictReader(file)]
    return [f"{folder / name} is gone" for name in names if name and not (folder / name).is_dir()]


def _sortable(value: Any, column: str) -> Any:
    return float(value) if column in _NUMBERS else str(value)


def _config(path: Path) -> Row:
    try:
        return dict(_flat(yaml.safe_load((path / CONFIG).read_text())))
    except (yaml.YAMLError, AttributeError) as error:
        raise KdpError(f"{path / CONFIG} is damaged") from error


def _metrics(path: Path) -> Row:
    info = read_info(path)
    try:
        quality = dict(_flat(json.loads((path / METRICS).read_text())))
    except (ValueError, AttributeError) as error:
        raise KdpError(f"{path / METRICS} is damaged") from error
    return {**quality, **{key: result_of(info)[key] for key in ("params", "MACs", "bytes")}}


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Values with their keys joined by dots; what is empty counts as a value."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _paired(first: Row, second: Row) -> dict[str, tuple[Any, Any]]:
    return {key: (first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])}


def _table(rows: Sequence[Row]) -> Table:
    """The id is never broken: it is there to be copied."""
    names = sorted({row["headline"] for row in rows})
    table = plain_table()
    table.add_column("id", no_wrap=True, min_width=max(len(row["exp_id"]) for row in rows))
    table.add_column(names[0].replace("_", "\n") if len(names) == 1 else "quality")
    for title in _SHOWN.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for row in rows:
        quality = "" if row["value"] is None else f"{row['value']:.4f}"
        quality += f" {row['headline']}" if names[1:] else ""
        costs = ("" if row[key] is None else f"{row[key]:,}" for key in _SHOWN)
        table.add_row(row["exp_id"], quality, *costs, escape(row["notes"]))
    return table


def _text(value: Any) -> str:
    """A cell; empty for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
