"""A sweep in one table: mean and spread over its seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from rich.console import Console

from kdp.config.overrides import split_override
from kdp.serialize import csv_of_mappings, json_text
from kdp.stages.compare.compare import EvaluatedNetwork
from kdp.stages.sweep.job import SweepPoint
from kdp.stages.sweep.quality import StageQuality
from kdp.stages.tables import plain_table
from kdp.tasks.base import Metrics

SEED = "seed"
"""The key whose values are repetitions."""
SPREAD = "standard deviation of the sample (n - 1)"
_MOST_COLUMNS = 4
"""Columns of metrics in a table; where there are more, it shows the primary metric of each set."""


@dataclass(frozen=True)
class SummaryRow:
    """One metric of a stage, over the points that differ in their seed alone.

    Attributes:
        settings: what varies over the grid besides the seed.
        stage: see `StageQuality`.
        set, metric: evaluation set and name.
        seeds: of the values; empty where the seed does not vary.
        values: one per point.
    """

    settings: dict[str, str]
    stage: str
    set: str
    metric: str
    seeds: list[str]
    values: list[float]

    @property
    def spread(self) -> float | None:
        """`SPREAD`; None for one value."""
        return stdev(self.values) if len(self.values) > 1 else None

    def plain(self) -> dict[str, Any]:
        """Everything but the settings, for files."""
        return {
            "stage": self.stage,
            "set": self.set,
            "metric": self.metric,
            "n": len(self.values),
            "mean": mean(self.values),
            "spread": self.spread,
            "min": min(self.values),
            "max": max(self.values),
        }


def summary_rows(points: Sequence[SweepPoint]) -> list[SummaryRow]:
    """Every metric that was measured, in the order of points and stages.

    The stages that a failed point completed count, too.
    """
    rows: dict[tuple[Any, ...], SummaryRow] = {}
    for point in points:
        settings = dict(map(split_override, point.overrides))
        seed = settings.pop(SEED, None)
        for stage, name, metric, value in _values(point.qualities):
            key = (*settings.items(), stage, name, metric)
            row = rows.setdefault(key, SummaryRow(settings, stage, name, metric, [], []))
            row.values.append(value)
            row.seeds.extend([seed] if seed is not None else [])
    return list(rows.values())


def earlier_qualities(
    points: Sequence[SweepPoint], columns: Sequence[EvaluatedNetwork]
) -> dict[str, list[dict[str, Metrics]]]:
    """The primary metrics after the stages before the last, for the networks of a comparison.

    Args:
        points: those that are done.
        columns: the last network of each, and others, such as the teacher.

    Returns:
        Stage -> metrics by evaluation set for each column, its own where it has no such stage.
    """
    by_file = {point.qualities[-1].file: point.qualities[:-1] for point in points}
    stages = dict.fromkeys(quality.stage for own in by_file.values() for quality in own)
    earlier = {}
    for stage in stages:
        own = [_after(by_file.get(str(column.path), []), stage) for column in columns]
        measured = next((quality for quality in own if quality), None)
        if measured:
            primary = measured.headline_metrics[0]
            earlier[stage] = [
                _only(quality.metrics if quality else column.quality, primary)
                for quality, column in zip(own, columns, strict=True)
            ]
    return earlier


def _after(qualities: Sequence[StageQuality], stage: str) -> StageQuality | None:
    return next((own for own in qualities if own.stage == stage and own.metrics), None)


def _only(metrics: Mapping[str, Metrics], name: str) -> dict[str, Metrics]:
    """One metric of every set that has it."""
    return {key: {name: values[name]} for key, values in metrics.items() if name in values}


def is_repeated(points: Sequence[SweepPoint]) -> bool:
    """Whether points differ in their seed alone, so that there is a spread."""
    return any(row.spread is not None for row in summary_rows(points))


def to_csv(points: Sequence[SweepPoint]) -> str:
    """One line per row of the summary."""
    rows = summary_rows(points)
    return csv_of_mappings(
        [{**row.settings, **row.plain(), "seeds": " ".join(row.seeds)} for row in rows]
    )


def to_json(points: Sequence[SweepPoint]) -> str:
    """All points, and the summary."""
    rows = [{**asdict(row), **row.plain()} for row in summary_rows(points)]
    plain = [asdict(point) for point in points]
    return json_text({"points": plain, "summary": rows, "spread": SPREAD})


WRITERS = {"csv": to_csv, "json": to_json}
"""File formats of a summary."""


def show(points: Sequence[SweepPoint], console: Console | None = None) -> None:
    """Print the outcome of every point, and mean and spread."""
    console = console or Console()
    table = plain_table()
    for title in ("point", "status", "result"):
        table.add_column(title, overflow="fold")
    for point in points:
        table.add_row(" ".join(point.overrides), point.status, point.result)
    console.print(table)
    if rows := summary_rows(points):
        _show_summary(rows, _shown_metrics(points), console)


def _show_summary(
    rows: Sequence[SummaryRow], shown: Sequence[tuple[str, str]], console: Console
) -> None:
    """A line for each setting and stage, a column for each metric of a set."""
    repeated = any(row.spread is not None for row in rows)
    table = plain_table("mean ± standard deviation" if repeated else None)
    keys = list(dict.fromkeys(key for row in rows for key in row.settings))
    for key in keys:
        table.add_column(key.rpartition(".")[2], overflow="fold")
    for title in ("stage", "n", *(f"{name} {metric}" for name, metric in shown)):
        table.add_column(title, justify="left" if title == "stage" else "right")
    lines: dict[tuple[Any, ...], dict[tuple[str, str], SummaryRow]] = {}
    for row in rows:
        line = (*(row.settings.get(key, "") for key in keys), row.stage)
        lines.setdefault(line, {})[row.set, row.metric] = row
    for line, cells in lines.items():
        count = max(len(row.values) for row in cells.values())
        texts = [_text(cells[key]) if key in cells else "" for key in shown]
        table.add_row(*line, str(count), *texts)
    console.print(table)


def _shown_metrics(points: Sequence[SweepPoint]) -> list[tuple[str, str]]:
    """Evaluation sets with the metrics of each that have a column."""
    columns = [
        (name, metric, metric == quality.headline_metrics[0])
        for point in points
        for quality in point.qualities
        for name, metrics in quality.metrics.items()
        for metric in quality.headline_metrics
        if metric in metrics
    ]
    shown = list(dict.fromkeys((name, metric) for name, metric, _ in columns))
    if len(shown) <= _MOST_COLUMNS:
        return shown
    return list(dict.fromkeys((name, metric) for name, metric, primary in columns if primary))


def _values(qualities: Sequence[StageQuality]) -> Iterator[tuple[str, str, str, float]]:
    """Stage, set, metric and value."""
    for quality in qualities:
        for name, metrics in quality.metrics.items():
            for metric, value in metrics.items():
                yield quality.stage, name, metric, value


def _text(row: SummaryRow) -> str:
    text = f"{mean(row.values):.4f}"
    return text if row.spread is None else f"{text} ± {row.spread:.4f}"
