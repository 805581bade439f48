"""The files of an experiment, and `results.csv`: the table of all experiments of a folder."""

from __future__ import annotations

import csv
import fcntl
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdp.contents import InfoContent, read_json
from kdp.errors import KdpError
from kdp.files import check_regular, check_writable
from kdp.serialize import csv_of_mappings
from kdp.text import from_csv_cell

CONFIG, CHECKPOINT, PREDICTIONS = "config.yml", "checkpoint.pth", "predictions.csv"
METRICS, INFO, RESULTS = "metrics.json", "info.json", "results.csv"
FILES = (CONFIG, CHECKPOINT, PREDICTIONS, METRICS, INFO)
"""The files of a complete experiment."""
MAX_TABLE = 1 << 30
"""Bytes of a table that is read: a million lines have a tenth of them."""
COLUMNS = (
    "exp_id",
    "timestamp",
    "config",
    "macro_avg_acc",
    "params",
    "MACs",
    "bytes",
    "pruning_step",
    "notes",
    "primary_metric",
    "value",
    "bytes_int8",
    "sparsity",
)
"""Columns of `results.csv`; `bytes` is the size of the parameters in fp32."""
RENAMED_COLUMNS = {"headline": "primary_metric"}
"""Columns and keys of `info.json` that earlier versions wrote -> their names today."""

ExperimentInfo = dict[str, Any]
"""The content of `info.json`."""
ResultRow = dict[str, Any]
"""The columns of `results.csv` with their values."""


def result_row(info: ExperimentInfo) -> ResultRow:
    """The row of `results.csv` for an `info.json`, of this version or an earlier one.

    Args:
        info: as `read_info` returns it.
    """
    current = {RENAMED_COLUMNS.get(key, key): value for key, value in info.items()}
    sizes = info["bytes"]
    current |= {"MACs": info["macs"]["count"], "bytes": sizes["fp32"]}
    # Earlier versions kept neither of them.
    current |= {"bytes_int8": sizes.get("int8", info["params"]), "sparsity": info.get("sparsity")}
    return {column: current[column] for column in COLUMNS}


def read_info(path: Path) -> ExperimentInfo:
    """The `info.json` of a complete experiment.

    Raises:
        KdpError: a file is missing or damaged.
    """
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise KdpError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    return dict(read_json(path / INFO, InfoContent))


def table_rows(path: Path, table: bytes) -> list[list[str]]:
    """The lines of a `results.csv` that are not empty, with the header.

    Args:
        path: of the file, for the message.
        table: its content, or the beginning of it.

    Raises:
        KdpError: it is no CSV.
    """
    text = io.StringIO(table.decode(errors="replace"), newline="")
    try:
        return [row for row in csv.reader(text) if row]
    except csv.Error as error:
        raise KdpError(f"{path} is damaged: {error}") from error


def check_table(folder: Path) -> None:
    """Make sure that experiments can be recorded in a folder, before hours are spent on one.

    Raises:
        KdpError: the folder or its table cannot be written, or the table is damaged.
    """
    check_writable(folder)
    path = folder / RESULTS
    if not path.exists():
        return
    try:
        check_regular(path)
        with path.open("ab+") as file:
            file.seek(0)
            table_rows(path, file.read())
    except OSError as error:
        raise KdpError(f"cannot write {path}: {error.strerror}") from error


def add_row(folder: Path, info: ExperimentInfo) -> None:
    """Append the row of an experiment to the table, under a lock.

    A killed run may have left the last line unfinished, or an experiment without a line: such
    lines are finished and added first. Whatever else the file holds stays as it is: a table of an
    earlier version keeps its columns.

    Raises:
        KdpError: the file cannot be read or written.
    """
    path = folder / RESULTS
    rows = [*_recorded(folder), result_row(info)]
    try:
        if path.exists():
            check_regular(path)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            # Read under the lock: of two first runs only one finds the file empty.
            file.write(_missing(path, file.read(), {row["exp_id"]: row for row in rows}))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KdpError(f"cannot write {path}: {error.strerror}") from error


def _missing(path: Path, table: bytes, rows: dict[str, ResultRow]) -> bytes:
    """What the table lacks: the end of its last line, and the lines of experiments."""
    header, _, _ = csv_of_mappings([dict.fromkeys(COLUMNS)]).encode().partition(b"\n")
    torn = _last_line(table)
    complete = table.removesuffix(torn)
    known = table_rows(path, complete)
    columns = known[0] if known and known[0][0] == COLUMNS[0] else COLUMNS
    listed = {from_csv_cell(row[0]) for row in known}
    lines = {name: _line(row, columns) for name, row in rows.items() if name not in listed}
    expected = list(lines.values()) if complete else [header + b"\n"]
    quote = b'"' if torn.count(b'"') % 2 else b""
    finished = next((line for line in expected if line.startswith(torn)), torn + quote + b"\n")
    begun = finished if torn or not table else b""
    added = b"".join(line for line in lines.values() if line != begun)
    return begun[len(torn) :] + added


def _line(row: ResultRow, columns: Sequence[str]) -> bytes:
    cells = {column: row.get(RENAMED_COLUMNS.get(column, column)) for column in columns}
    return csv_of_mappings([cells]).encode().partition(b"\n")[2]


def _recorded(folder: Path) -> list[ResultRow]:
    """The rows of all complete experiments, the oldest first."""
    rows = []
    for path in folder.glob(f"[!.]*/{INFO}"):
        with suppress(KdpError):
            rows.append(result_row(read_info(path.parent)))
    return sorted(rows, key=lambda row: str(row["timestamp"]))


def _last_line(table: bytes) -> bytes:
    """What follows the last complete line; a line break within quotes ends no line."""
    end, quoted = 0, False
    for position, byte in enumerate(table):
        if byte == ord('"'):
            quoted = not quoted
        elif byte == ord("\n") and not quoted:
            end = position + 1
    return table[end:]
