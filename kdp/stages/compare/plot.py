"""A comparison as a plot: quality against MACs, one panel per evaluation set."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from kdp.config import Config
from kdp.errors import KdpError
from kdp.stages.compare.compare import Comparison
from kdp.stages.compare.rows import MACS, ComparisonRow, cost_rows, quality_row
from kdp.tasks import task_for

_WIDTH, _HEIGHT, _ACROSS = 4.8, 3.8, 3
"""Inches of a panel, and panels side by side."""

_DISTANCES = (7, 18, 30, 44)
"""Points from a point to its label."""

_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_Place = tuple[int, tuple[int, int]]
_HORIZONTAL = {1: "left", 0: "center", -1: "right"}
_VERTICAL = {1: "bottom", 0: "center", -1: "top"}


@dataclass(frozen=True)
class _Point:
    label: str
    x: float
    y: float
    color: str


def to_png(comparison: Comparison, config: Config) -> bytes:
    """`figure` of the task's primary metric, as a PNG.

    Args:
        comparison: of one network or more.
        config: the configuration that the comparison was made with.

    Raises:
        KdpError: there is no evaluation set.
    """
    task = task_for(comparison.columns[0].arch, config)
    buffer = io.BytesIO()
    figure(comparison, task.primary_metric).savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def figure(comparison: Comparison, metric: str) -> Figure:
    """A metric against MACs: a panel per evaluation set, a labelled point per network.

    Args:
        comparison: of one network or more.
        metric: a key of `MeasuredNetwork.quality`.

    Raises:
        KdpError: there is no evaluation set.
    """
    if not comparison.samples:
        raise KdpError("there is nothing to plot: the configuration has no evaluation set")
    cost = next(row for row in cost_rows(comparison) if row.name == MACS)
    across = min(len(comparison.samples), _ACROSS)
    down = -(-len(comparison.samples) // across)
    drawing = Figure(figsize=(_WIDTH * across + 1, _HEIGHT * down + 1), layout="constrained")
    drawing.suptitle(_title(comparison, cost, across), fontsize=8)
    labels, panels = [network.label for network in comparison.columns], []
    for i, (name, count) in enumerate(comparison.samples.items(), 1):
        axes = drawing.add_subplot(down, across, i)
        quality = quality_row(comparison, name, metric)
        axes.set_title(f"{name} ({count} samples)", fontsize=10)
        axes.set_ylabel(quality.title.removeprefix(f"{name} "))
        panels.append((axes, _draw(axes, labels, cost, quality)))
    drawing.draw_without_rendering()  # labels are placed by where points lie in pixels
    for axes, points in panels:
        _label(axes, points)
    return drawing


def _title(comparison: Comparison, cost: ComparisonRow, across: int) -> str:
    lines = (f"quality: {comparison.protocol}", f"{cost.name}: {cost.how}")
    return "\n".join(textwrap.fill(line, 90 * across) for line in lines)


def _draw(
    axes: Axes, labels: Sequence[str], cost: ComparisonRow, quality: ComparisonRow
) -> list[_Point]:
    """The points; values that are not finite have no place on an axis: the title names them."""
    costs = [value / cost.scale.factor for value in cost.values]
    qualities = [value / quality.scale.factor for value in quality.values]
    values = zip(labels, costs, qualities, strict=True)
    points = [_Point(label, x, y, f"C{i % 10}") for i, (label, x, y) in enumerate(values)]
    shown = [point for point in points if math.isfinite(point.y)]
    for point in shown:
        axes.scatter([point.x], [point.y], s=36, color=point.color, gid=point.label, zorder=3)
    missing = [f"{point.label} is {point.y}" for point in points if point not in shown]
    if missing:
        axes.set_title("\n".join([axes.get_title(), *missing]), fontsize=10)
    axes.set_xlabel(cost.title)
    axes.margins(0.2)
    axes.set_xlim(left=max(axes.get_xlim()[0], 0))  # the margin of small networks is no cost
    axes.ticklabel_format(useOffset=False)
    axes.grid(alpha=0.3)
    return shown


def _label(axes: Axes, points: Sequence[_Point]) -> None:
    """Write each label where it hides the fewest points and labels, nearest first."""
    taken = [_marker(axes, point) for point in points]
    for point in points:
        note = axes.annotate(
            point.label,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            color=point.color,
            fontsize=8,
            in_layout=False,
        )
        distance, direction = _best_place(note, taken, axes.bbox)
        taken.append(_move(note, distance, direction))
        if distance > _DISTANCES[0]:
            _join(axes, point, note)


def _best_place(note: Annotation, taken: Sequence[Bbox], panel: Bbox) -> _Place:
    """The nearest place where a label hides nothing, or else the one where it hides least."""
    hidden: dict[_Place, int] = {}
    for place in product(_DISTANCES, _DIRECTIONS):
        hidden[place] = _hidden(_move(note, *place), taken, panel)
        if not hidden[place]:
            break
    return min(hidden, key=hidden.__getitem__)


def _marker(axes: Axes, point: _Point) -> Bbox:
    """What a point covers, in pixels."""
    x, y = axes.transData.transform((point.x, point.y))
    return Bbox.from_bounds(x - 5, y - 5, 10, 10)


def _move(note: Annotation, distance: int, direction: tuple[int, int]) -> Bbox:
    """Put a label beside its point; what it covers then, in pixels."""
    right, up = direction
    note.set_position((right * distance, up * distance))
    note.set(ha=_HORIZONTAL[right], va=_VERTICAL[up])
    return note.get_window_extent()


def _hidden(box: Bbox, taken: Sequence[Bbox], panel: Bbox) -> int:
    inside = panel.containsx(box.x0) and panel.containsx(box.x1)
    inside = inside and panel.containsy(box.y0) and panel.containsy(box.y1)
    return box.count_overlaps(taken) + (0 if inside else len(taken))


def _join(axes: Axes, point: _Point, note: Annotation) -> None:
    """A thin line from a point to a label far from it."""
    line = {"arrowstyle": "-", "linewidth": 0.6, "color": point.color}
    axes.annotate(
        "",
        (point.x, point.y),
        note.get_position(),
        textcoords="offset points",
        arrowprops=line,
        in_layout=False,
    )
