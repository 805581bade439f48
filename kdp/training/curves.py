"""Training curves on disk: JSONL after every row, CSV at every validation, a PNG now and then."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from pathlib import Path
from typing import Any

from kdp.errors import KdpError
from kdp.files import write_atomic
from kdp.serialize import json_line

Row = dict[str, Any]

PAUSE = 60.0
"""Seconds between two pictures: one of many metrics takes some to draw."""


ACROSS = 3
"""Panels side by side in the picture."""


class Curves:
    """Rows of numbers by step, in `folder/curves.{jsonl,csv,png}`.

    Args:
        folder: where the files go.
        done: steps that are kept; rows of later ones are dropped (0: the run starts anew).
    """

    def __init__(self, folder: Path, done: int = 0) -> None:
        self.folder = folder
        self._drawn = time.monotonic()
        self.rows = [row for row in self._read() if row["step"] <= done]
        text = "".join(json_line(row) + "\n" for row in self.rows)
        write_atomic(self._path, text.encode())

    def add(self, row: Row) -> None:
        """Append one row; `step` is required.

        Raises:
            KdpError: the file cannot be written.
        """
        self.rows.append(row)
        try:
            with self._path.open("a") as file:
                file.write(json_line(row) + "\n")
        except OSError as error:
            raise KdpError(f"cannot write {self._path}: {error.strerror}") from error

    def draw(self, last: bool) -> None:
        """Write the CSV and, at the end and where the last one is old, the picture."""
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self.folder / "curves.csv", buffer.getvalue().encode())
        if last or time.monotonic() - self._drawn > PAUSE:
            write_atomic(self.folder / "curves.png", self._png(columns))
            self._drawn = time.monotonic()

    @property
    def _path(self) -> Path:
        return self.folder / "curves.jsonl"

    def _read(self) -> list[Row]:
        if not self._path.exists():
            return []
        rows = []
        for line in self._path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:  # the last line of a killed run
                break
        return rows

    def _png(self, columns: list[str]) -> bytes:
        """A panel per column; margins are given, as finding them takes as long as drawing."""
        from matplotlib.figure import Figure

        shown = [c for c in columns if c not in {"step", "seconds"}]
        lines = math.ceil(len(shown) / ACROSS)
        height = 1.9 * lines + 0.8
        figure = Figure(figsize=(4 * ACROSS, height))
        figure.subplots_adjust(0.06, 0.5 / height, 0.99, 1 - 0.3 / height, hspace=0.35)
        for i, column in enumerate(shown):
            axes = figure.add_subplot(lines, ACROSS, i + 1)
            points = [(row["step"], row[column]) for row in self.rows if column in row]
            axes.plot(*zip(*points, strict=True), linewidth=1)
            axes.set_title(column, fontsize=9)
            axes.set_xlim(0, self.rows[-1]["step"])
            axes.locator_params(nbins=4)
            axes.grid(alpha=0.3)
            if i + ACROSS < len(shown):
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel("step")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        return buffer.getvalue()
