"""`kdp experiments`: the recorded experiments, sorted, or the difference between two."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from kdp.errors import KdpError, suggest
from kdp.stages.experiments.store import (
    COLUMNS,
    CONFIG,
    FILES,
    INFO,
    METRICS,
    RENAMED_COLUMNS,
    RESULTS,
    result_row,
)
from kdp.stages.tables import plain_table, print_line, with_unit
from kdp.text import from_csv_cell
from kdp.yaml_file import yaml_text

ResultRow = dict[str, Any]
_NUMBERS = ("macro_avg_acc", "params", "MACs", "bytes", "pruning_step", "value")


@dataclass(frozen=True)
class ExperimentList:
    """The experiments of a folder.

    Attributes:
        rows: one row per experiment with the columns of `results.csv`, read from its folder.
        left_out: why folders and rows of `results.csv` are not complete experiments, in words.
    """

    rows: list[ResultRow]
    left_out: list[str]


@dataclass(frozen=True)
class ExperimentDifference:
    """Two experiments; `config` has only what differs, and None where a key is missing.

    Attributes:
        ids: of both.
        config: values of both by dotted key.
        metrics: values of both by set and metric, and parameters, MACs and bytes.
    """

    ids: tuple[str, str]
    config: dict[str, tuple[Any, Any]]
    metrics: dict[str, tuple[Any, Any]]


def list_experiments(
    folder: Path, sort: str = "timestamp", reverse: bool = False
) -> ExperimentList:
    """The experiments of a folder; those without a value in the column `sort` come last.

    Raises:
        KdpError: there is no such column, or `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise KdpError(f"{folder} is a file, not a folder of experiments")
    sort = RENAMED_COLUMNS.get(sort, sort)
    if sort not in COLUMNS:
        raise KdpError(f"the results have no column {sort!r}; {suggest(sort, COLUMNS)}")
    rows, left_out = [], _deleted(folder)
    # Read from the folders, not from results.csv, which may be edited or lack the row of a run that
    # was killed. Names that start with a dot belong to experiments that are being written.
    for path in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
        try:
            rows.append(result_row(read_info(path)))
        except KdpError as error:
            left_out.append(str(error))
    sortable = [row for row in rows if row[sort] is not None]
    sortable.sort(key=lambda row: _sort_key(row[sort], sort), reverse=reverse)
    return ExperimentList(sortable + [row for row in rows if row[sort] is None], left_out)


def find_experiment(folder: Path, name: str) -> Path:
    """The folder of an experiment, by its id.

    Raises:
        KdpError: there is none, or it is incomplete.
    """
    known = [row["exp_id"] for row in list_experiments(folder).rows]
    if name in known:
        return folder / name
    if not known:
        raise KdpError(f"there are no experiments in {folder}")
    if (folder / name).is_dir():
        read_info(folder / name)
    raise KdpError(f"{folder} has no experiment {name!r}; {suggest(name, known)}")


def read_info(path: Path) -> dict[str, Any]:
    """The `info.json` of a complete experiment.

    Raises:
        KdpError: a file is missing or damaged.
    """
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise KdpError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    try:
        info = json.loads((path / INFO).read_text())
        result_row(info)
    except (ValueError, LookupError, TypeError) as error:
        raise KdpError(f"{path / INFO} is damaged") from error
    return dict(info)


def difference(folder: Path, first: str, second: str) -> ExperimentDifference:
    """What differs between two experiments, and their metrics.

    Raises:
        KdpError: one does not exist or is incomplete.
    """
    paths = [find_experiment(folder, name) for name in (first, second)]
    configs, metrics = ([read(path) for path in paths] for read in (_config, _metrics))
    pairs = _paired(*configs)
    changed = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    return ExperimentDifference((first, second), changed, _paired(*metrics))


def show(listing: ExperimentList | ExperimentDifference, console: Console | None = None) -> None:
    """Print one row per experiment and what was left out, or what differs between two."""
    console = console or Console()
    if isinstance(listing, ExperimentDifference):
        _show_difference(listing, console)
        return
    console.print(_table(listing.rows) if listing.rows else "there are no experiments here")
    for line in listing.left_out:
        print_line(console, f"left out: {line}")


def _show_difference(difference: ExperimentDifference, console: Console) -> None:
    """The keys that differ, then the metrics."""
    for letter, name in zip("AB", difference.ids, strict=True):
        print_line(console, f"{letter}: {name}")
    for title, pairs in (("configuration", difference.config), ("result", difference.metrics)):
        table = plain_table()
        table.add_column(title, overflow="fold")
        table.add_column("A", overflow="fold")
        table.add_column("B", overflow="fold")
        for key, pair in pairs.items():
            table.add_row(key, *map(_text, pair))
        console.print(table if pairs else f"{title}: the same")


def _deleted(folder: Path) -> list[str]:
    """The rows of `results.csv` whose folder was deleted."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        names = [from_csv_cell(row.get("exp_id") or "") for row in csv.DictReader(file)]
    return [f"{folder / name} is gone" for name in names if name and not (folder / name).is_dir()]


def _sort_key(value: Any, column: str) -> Any:
    return float(value) if column in _NUMBERS else str(value)


def _config(path: Path) -> ResultRow:
    try:
        return dict(_flat(yaml.safe_load(yaml_text(path / CONFIG))))
    except (yaml.YAMLError, AttributeError) as error:
        raise KdpError(f"{path / CONFIG} is damaged") from error


def _metrics(path: Path) -> ResultRow:
    info = read_info(path)
    try:
        quality = dict(_flat(json.loads((path / METRICS).read_text())))
    except (ValueError, AttributeError) as error:
        raise KdpError(f"{path / METRICS} is damaged") from error
    return {**quality, **{key: result_row(info)[key] for key in ("params", "MACs", "bytes")}}


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Values with their keys joined by dots; an empty mapping counts as a value."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _paired(first: ResultRow, second: ResultRow) -> dict[str, tuple[Any, Any]]:
    return {key: (first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])}


def _table(rows: Sequence[ResultRow]) -> Table:
    """One row per experiment. Ids are never wrapped, so that they can be copied."""
    names = sorted({row["primary_metric"] for row in rows})
    table = plain_table()
    table.add_column("id", no_wrap=True, min_width=max(len(row["exp_id"]) for row in rows))
    table.add_column(names[0].replace("_", "\n") if len(names) == 1 else "quality")
    for title in ("parameters", "MACs", "size", "step"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for row in rows:
        quality = "" if row["value"] is None else f"{row['value']:.4f}"
        quality += f" {row['primary_metric']}" if names[1:] else ""
        step = "" if row["pruning_step"] is None else str(row["pruning_step"])
        costs = (f"{row['params']:,}", with_unit(row["MACs"]), with_unit(row["bytes"], "B"), step)
        table.add_row(row["exp_id"], quality, *costs, row["notes"])
    return table


def _text(value: Any) -> str:
    """A cell; empty for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
