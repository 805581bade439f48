"""Training curves on disk: JSON Lines after every row, CSV and a plot after validations."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdp.errors import KdpError
from kdp.files import append_line, read_regular, write_atomic
from kdp.serialize import csv_of_mappings, json_line
from kdp.training.curve_plot import plot_curves

CurveRow = dict[str, Any]

MAX_BYTES = 2_000_000_000
"""Of the rows of a run."""
PLOT_INTERVAL = 60.0
"""Seconds between two plots of a run: drawing takes longer than a step of a small network."""


class Curves:
    """Rows of numbers by step, in `folder/curves.{jsonl,csv,png}`.

    Args:
        folder: where the files go.
        done: steps that are kept; rows of later ones are dropped (0: the run starts anew).
        headline_metrics: the metrics that the plot shows; all where empty.
    """

    def __init__(self, folder: Path, done: int = 0, headline_metrics: Sequence[str] = ()) -> None:
        self.folder, self.headline_metrics = folder, headline_metrics
        self._plotted = time.monotonic()
        self.rows = [row for row in self._read() if row["step"] <= done]
        text = "".join(json_line(row) + "\n" for row in self.rows)
        write_atomic(self._path, text.encode())

    def add(self, row: CurveRow) -> None:
        """Append one row; `step` is required.

        Raises:
            KdpError: the file cannot be written.
        """
        self.rows.append(row)
        try:
            append_line(self._path, json_line(row))
        except OSError as error:
            raise KdpError(f"cannot write {self._path}: {error.strerror}") from error

    def sync(self) -> None:
        """Make the rows survive a power failure, before a checkpoint that counts on them does."""
        with suppress(OSError), self._path.open("ab") as file:
            os.fsync(file.fileno())

    def draw(self, last: bool) -> None:
        """Write the CSV and, at the end or when the last plot is old, the plot."""
        write_atomic(self.folder / "curves.csv", csv_of_mappings(self.rows).encode())
        if last or time.monotonic() - self._plotted > PLOT_INTERVAL:
            plot = plot_curves(self.rows, self.headline_metrics)
            write_atomic(self.folder / "curves.png", plot)
            self._plotted = time.monotonic()

    @property
    def _path(self) -> Path:
        return self.folder / "curves.jsonl"

    def _read(self) -> list[CurveRow]:
        if not self._path.exists():
            return []
        rows = []
        for line in read_regular(self._path, MAX_BYTES).decode(errors="replace").splitlines():
            with suppress(ValueError):  # the last line of a killed run
                row = json.loads(line)
                if isinstance(row, dict) and isinstance(row.get("step"), int):
                    rows.append(row)
        return rows
