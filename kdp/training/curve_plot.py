"""The plot of a training run: losses, headline metrics and the learning rate by step."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACROSS = {1: 1, 2: 2, 4: 2}
"""Panels side by side, by number of panels; three where not listed."""
_WIDTH, _HEIGHT, _RATE_HEIGHT = 4.4, 2.7, 0.9
"""Inches of a panel, and the height of the learning rate's."""
_LEFT, _RIGHT, _ABOVE, _BELOW = 0.75, 0.15, 0.35, 0.3
"""Inches around each axes for its title and numbers."""
_FEW = 40
"""Up to so many points are marked: a line through two points, or one point, shows too little."""
_LOG_RANGE = 50
"""Largest over smallest value from which a panel of losses has a logarithmic axis."""
_RATIOS = ("macs_kept",)
"""Columns that are no losses although they stand beside them; each has a panel of its own."""

Rows = Sequence[Mapping[str, Any]]
Panels = dict[str, list[str]]


def plot_curves(rows: Rows, headline_metrics: Sequence[str] = ()) -> bytes:
    """The curves of a run as a PNG.

    Args:
        rows: numbers by column name; every row has a `step`. Metrics are named "set/metric".
        headline_metrics: the metrics to show; where empty, all that are not of a part of the
            samples (a class, a device).
    """
    panels = _panels(rows, headline_metrics)
    figure = _figure(len(panels))
    last_step = max(int(row["step"]) for row in rows)
    axes: Any = figure.axes
    for panel, (title, columns) in zip(axes[:-1], panels.items(), strict=True):
        _draw(panel, rows, columns, title)
    _draw(axes[-1], rows, ["lr"], "learning rate")
    for panel in axes:
        panel.set_xlim(0, last_step * 1.02)
        panel.locator_params(axis="x", nbins=5, integer=True)
    axes[-1].set_xlabel("step", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _panels(rows: Rows, headline_metrics: Sequence[str]) -> Panels:
    """Title and columns of every panel: losses first, then a panel for each metric of all sets."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    plain = [name for name in names if "/" not in name]
    metrics = [name.rpartition("/")[2] for name in names if "/" in name]
    metrics = [metric for metric in metrics if metric != "loss"]
    no_parts = {"step", "seconds", "lr", "loss", *_RATIOS, *metrics}
    parts = [name for name in plain if name not in no_parts]
    losses = [name for name in names if name.endswith("/loss")]
    distils = len(parts) > 1  # a single part is the loss itself
    # Validation losses are without distillation: the part that compares with them stands beside.
    task = ["task"] if distils and losses else []
    panels: Panels = {"loss": [name for name in ["loss", *task, *losses] if name in names]}
    if distils:
        panels["parts of the loss"] = parts
    shown = [metric for metric in headline_metrics if metric in metrics]
    for metric in shown or [metric for metric in metrics if " " not in metric]:
        panels[metric] = [n for n in names if n == metric or n.endswith(f"/{metric}")]
    panels |= {ratio: [ratio] for ratio in _RATIOS if ratio in names}
    return {title: columns for title, columns in panels.items() if columns}


def _figure(panels: int) -> Figure:
    """Panels in a grid, and below them a low one that is as wide as all of them."""
    from matplotlib.figure import Figure

    across = _ACROSS.get(panels, 3)
    down = math.ceil(panels / across)
    width, bottom = max(_WIDTH, 6.0 / across), _RATE_HEIGHT + 0.4
    height = bottom + down * _HEIGHT
    figure = Figure(figsize=(width * across, height))
    for number in range(panels):
        row, column = divmod(number, across)
        place = (column * width, height - (row + 1) * _HEIGHT, width, _HEIGHT)
        _add_axes(figure, place)
    _add_axes(figure, (0, 0.2, width * across, bottom - 0.2))
    return figure


def _add_axes(figure: Figure, place: tuple[float, float, float, float]) -> None:
    """Add axes with room around them; `place`: left, bottom, width, height in inches.

    Matplotlib can find margins that fit, but takes as long for it as for drawing.
    """
    left, bottom, width, height = place
    across, up = figure.get_size_inches()
    figure.add_axes(
        (
            (left + _LEFT) / across,
            (bottom + _BELOW) / up,
            (width - _LEFT - _RIGHT) / across,
            (height - _BELOW - _ABOVE) / up,
        )
    )


def _draw(axes: Axes, rows: Rows, columns: Sequence[str], title: str) -> None:
    """One panel: a line per column, with markers where the points are few."""
    values: list[float] = []
    for column in columns:
        # Numbers that are not finite are null in the file, and have no place on an axis.
        points = [(row["step"], row[column]) for row in rows if row.get(column) is not None]
        if not points:
            continue
        marker = "o" if len(points) <= _FEW else ""
        label = _label(column, columns)
        axes.plot(*zip(*points, strict=True), linewidth=1.3, marker=marker, ms=3.5, label=label)
        values += [value for _, value in points]
    if "loss" in title and values and min(values) > 0 and max(values) > _LOG_RANGE * min(values):
        axes.set_yscale("log")
    axes.set_title(title.replace("_", " "), fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(columns) > 1:
        axes.legend(fontsize=7, frameon=False)


def _label(column: str, columns: Sequence[str]) -> str:
    """The set of a metric; beside sets, what is measured on training batches is "training"."""
    if "/" in column:
        return column.rpartition("/")[0]
    if any("/" in other for other in columns):
        return "training, ground truth alone" if column == "task" else "training"
    return column.replace("_", " ")
