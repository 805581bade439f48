"""`kdp experiments`: the recorded experiments, sorted, or the difference between two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from kdp.contents import Settings as PlainSettings
from kdp.contents import check_types, read_json
from kdp.errors import KdpError, suggest
from kdp.files import read_regular
from kdp.serialize import flattened
from kdp.stages.experiments.results import (
    COLUMNS,
    CONFIG,
    MAX_TABLE,
    METRICS,
    RENAMED_COLUMNS,
    RESULTS,
    ResultRow,
    read_info,
    result_row,
    table_rows,
)
from kdp.stages.experiments.table import cell, tables
from kdp.stages.experiments.varied import Settings, varied
from kdp.stages.tables import plain_table, print_line
from kdp.text import from_csv_cell
from kdp.yaml_file import yaml_text

_COSTS = ("params", "MACs", "bytes", "bytes_int8", "sparsity")
_NUMBERS = (
    "macro_avg_acc",
    "params",
    "MACs",
    "bytes",
    "pruning_step",
    "value",
    "bytes_int8",
    "sparsity",
)


@dataclass(frozen=True)
class ExperimentList:
    """The experiments of a folder.

    Attributes:
        rows: one row per experiment with the columns of `results.csv`, read from its folder.
        left_out: why folders and rows of `results.csv` are not complete experiments, in words.
        settings: for each row the values of the settings that are not equal in all of them.
    """

    rows: list[ResultRow]
    left_out: list[str]
    settings: list[Settings]


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
    rows, left_out = _complete(folder)
    sortable = [row for row in rows if row[sort] is not None]
    sortable.sort(key=lambda row: _sort_key(row[sort], sort), reverse=reverse)
    rows = sortable + [row for row in rows if row[sort] is None]
    settings = varied([_config(folder / row["exp_id"]) for row in rows])
    return ExperimentList(rows, left_out, settings)


def find_experiment(folder: Path, name: str) -> Path:
    """The folder of an experiment, by its id.

    Raises:
        KdpError: there is none, or it is incomplete.
    """
    known = [row["exp_id"] for row in _complete(folder)[0]]
    if name in known:
        return folder / name
    if not known:
        raise KdpError(f"there are no experiments in {folder}")
    if (folder / name).is_dir():
        read_info(folder / name)
    raise KdpError(f"{folder} has no experiment {name!r}; {suggest(name, known)}")


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
    if not listing.rows:
        console.print("there are no experiments here")
    else:
        for table in tables(listing.rows, listing.settings, console):
            console.print(table)
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
            table.add_row(key, *map(cell, pair))
        console.print(table if pairs else f"{title}: the same")


def _complete(folder: Path) -> tuple[list[ResultRow], list[str]]:
    """The rows of complete experiments, and why others are left out."""
    rows, left_out = [], _deleted(folder)
    # Read from the folders, not from results.csv, which may be edited or lack the row of a run that
    # was killed. Names that start with a dot belong to experiments that are being written.
    for path in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
        try:
            row = result_row(read_info(path))
        except KdpError as error:
            left_out.append(str(error))
        else:
            rows.append({**row, "exp_id": path.name})
    return rows, left_out


def _deleted(folder: Path) -> list[str]:
    """The rows of `results.csv` whose folder was deleted."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    header, *rows = table_rows(path, read_regular(path, MAX_TABLE)) or [[]]
    column = header.index("exp_id") if "exp_id" in header else len(header)
    names = [from_csv_cell(row[column]) for row in rows if column < min(len(row), len(header))]
    return [f"{folder / name} is gone" for name in names if name and not (folder / name).is_dir()]


def _sort_key(value: Any, column: str) -> Any:
    return float(value) if column in _NUMBERS else str(value)


def _config(path: Path) -> ResultRow:
    try:
        content = yaml.safe_load(yaml_text(path / CONFIG))
    except (yaml.YAMLError, ValueError) as error:
        raise KdpError(f"{path / CONFIG} is damaged") from error
    check_types(path / CONFIG, PlainSettings, content)
    return flattened(content)


def _metrics(path: Path) -> ResultRow:
    info = read_info(path)
    quality = flattened(read_json(path / METRICS, PlainSettings))
    return {**quality, **{key: result_row(info)[key] for key in _COSTS}}


def _paired(first: ResultRow, second: ResultRow) -> dict[str, tuple[Any, Any]]:
    return {key: (first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])}
