"""The rows of a comparison: quality, cost and speed of every network, with their units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kdp.measure.latency import UNRELIABLE_SPREAD
from kdp.stages.compare.compare import (
    Comparison,
    EvaluatedNetwork,
    Evaluation,
    MeasuredNetwork,
)
from kdp.stages.deployed import DEPLOYED
from kdp.stages.tables import Scale, scale_for
from kdp.tasks.base import Metrics

_PERCENT = Scale(0.01, "%", 2)
_METRIC_SCALES = {
    "psnr": Scale(digits=2),
    "accuracy": _PERCENT,
    "macro_accuracy": _PERCENT,
    "clip_macro_accuracy": _PERCENT,
}
"""How a metric is written; metrics not listed are numbers with four decimals."""
_METRIC_UNITS = {"psnr": "dB"}
_METRIC_TITLES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "f1": "F1",
    "map50": "mAP50",
    "map50_95": "mAP50-95",
}
_SUBSET_METRICS = ("class ", "device ")
"""Prefixes of metrics of a part of the samples: accuracies."""

MACS = "MACs, all"
"""Name of the row with the MACs of the whole network."""
MODULE_MACS = "MACs, modules"
"""Name of the row with the MACs that papers report."""
_WEIGHTS = "bytes of the parameters; of an ONNX file the bytes of all its constants"


_RELATIONS = "in brackets: ratio to the first column (quality: difference); k = 10^3, M = 10^6"


@dataclass(frozen=True)
class ComparisonRow:
    """One measurement of all networks.

    Attributes:
        name: what is measured.
        unit: of the values.
        values: as measured, one per network.
        scale: how the values are written in a table.
        relation: how the networks are related to the first.
        how: what counted or measured, and on what input.
        unreliable: networks whose value is too noisy to be related to another; empty for none.
    """

    name: str
    unit: str
    values: list[float]
    scale: Scale
    relation: Literal["ratio", "difference", "none"] = "ratio"
    how: str = ""
    unreliable: tuple[bool, ...] = ()

    @property
    def title(self) -> str:
        """Name and unit as a table shows them."""
        unit = f"{self.scale.prefix}{self.unit}"
        return f"{self.name}, {unit}" if unit else self.name

    @property
    def relative(self) -> list[float | None]:
        """Each value over, or minus, the first; None where that has no meaning."""
        return [self._relate(number) for number in range(len(self.values))]

    def plain(self) -> dict[str, Any]:
        """Raw numbers and their relations, for files."""
        return {
            "name": self.name,
            "unit": self.unit,
            "values": self.values,
            "relation": self.relation,
            "relative": self.relative,
            "unreliable": list(self.unreliable),
            "how": self.how,
        }

    def _relate(self, number: int) -> float | None:
        first, value = self.values[0], self.values[number]
        if self.relation == "none" or not (math.isfinite(value) and math.isfinite(first)):
            return None
        # A ratio hides how noisy its two numbers are, and is what gets quoted.
        if any(self.unreliable[:1]) or any(self.unreliable[number : number + 1]):
            return None
        if self.relation == "difference":
            return value - first
        return value / first if first else None


def comparison_rows(comparison: Evaluation) -> list[ComparisonRow]:
    """The rows of the table: quality first, then size and speed where they were measured."""
    if not isinstance(comparison, Comparison):
        return _quality_rows(comparison)
    return [*_earlier_rows(comparison), *_quality_rows(comparison), *cost_rows(comparison)]


def quality_row(
    comparison: Evaluation,
    set_name: str,
    metric: str,
    qualities: Sequence[Mapping[str, Metrics]] = (),
) -> ComparisonRow:
    """One metric on one evaluation set.

    Args:
        comparison: of one network or more.
        set_name: a key of `Comparison.samples`.
        metric: a key of the metrics of that set.
        qualities: metrics by set for each network, in place of its own.
    """
    qualities = qualities or [network.quality for network in comparison.columns]
    values = [quality[set_name][metric] for quality in qualities]
    how = f"{comparison.protocol}; {comparison.samples[set_name]} samples"
    is_of_classes = metric.startswith(_SUBSET_METRICS) or " as " in metric
    # Names of classes and devices are the data's own and stay as they are.
    title = metric if is_of_classes else _METRIC_TITLES.get(metric, metric.replace("_", " "))
    if " as " in metric:  # an entry of a confusion matrix: a count
        return ComparisonRow(f"{set_name} {title}", "", values, Scale(), "none", how)
    scale = _METRIC_SCALES.get(metric, Scale(digits=4))
    if metric.startswith(_SUBSET_METRICS):
        scale = Scale(0.01, "%", 1)
    unit = _METRIC_UNITS.get(metric, "")
    return ComparisonRow(f"{set_name} {title}", unit, values, scale, "difference", how)


def cost_rows(comparison: Comparison) -> list[ComparisonRow]:
    """Parameters, bytes and MACs, then latency."""
    return [*_size_rows(comparison), *_latency_rows(comparison)]


def notes(comparison: Evaluation) -> list[str]:
    """Which file is which, and how the numbers were measured; one line each."""
    sets = ", ".join(f"{name} {count}" for name, count in comparison.samples.items())
    costs = _cost_notes(comparison) if isinstance(comparison, Comparison) else []
    return [
        *(_file_note(number, column) for number, column in enumerate(comparison.columns, 1)),
        f"quality: {comparison.protocol}; samples: {sets or 'none'}",
        *costs,
        _RELATIONS if costs else "in brackets: difference to the first column",
    ]


def _cost_notes(comparison: Comparison) -> list[str]:
    share = f"{UNRELIABLE_SPREAD:.0%}"
    noisy = f"(!) unreliable: the spread is above {share} of the median; repeat on an idle machine"
    return [
        *(f"{row.name}: {row.how}" for row in cost_rows(comparison) if row.how),
        *([noisy] if any(any(row.unreliable) for row in _latency_rows(comparison)) else []),
    ]


def _earlier_rows(comparison: Comparison) -> list[ComparisonRow]:
    """The quality after earlier stages, whose metrics all networks have."""
    rows = []
    for stage, qualities in comparison.earlier.items():
        for set_name, metrics in qualities[-1].items():
            for metric in metrics:
                row = quality_row(comparison, set_name, metric, qualities)
                rows.append(replace(row, name=f"{row.name} ({stage})"))
    return rows


def _quality_rows(comparison: Evaluation) -> list[ComparisonRow]:
    return [
        quality_row(comparison, set_name, metric)
        for set_name, metrics in comparison.columns[0].quality.items()
        for metric in metrics
    ]


def _size_rows(comparison: Comparison) -> list[ComparisonRow]:
    networks, size = comparison.columns, times(comparison.input_shape)
    by_counter, by_modules = (
        f"{counter}; input {size}" for counter in (comparison.counter, comparison.module_counter)
    )
    macs = [network.macs for network in networks]
    module_macs = [network.module_macs for network in networks]
    return [
        _count_row("parameters", [network.parameters for network in networks]),
        *_deployed_rows(networks),
        _count_row("non-zero", [network.nonzero for network in networks]),
        _scaled_row("weights", "B", [network.weight_bytes for network in networks], _WEIGHTS),
        _scaled_row(MACS, "", macs, by_counter),
        _scaled_row(MODULE_MACS, "", module_macs, by_modules),
        _scaled_row("FLOPs, all", "", [2 * count for count in macs], f"2 x {MACS}"),
        _scaled_row("FLOPs, modules", "", [2 * n for n in module_macs], f"2 x {MODULE_MACS}"),
        _scaled_row("file", "B", [network.file_bytes for network in networks]),
    ]


def _deployed_rows(networks: Sequence[MeasuredNetwork]) -> list[ComparisonRow]:
    """Parameters after `kdp rebuild`, where a file has others: removed units, or branches."""
    counts = [network.deployed_parameters for network in networks]
    if counts == [network.parameters for network in networks]:
        return []
    return [replace(_count_row("parameters, deployed", counts), how=DEPLOYED)]


def _latency_rows(comparison: Comparison) -> list[ComparisonRow]:
    measured = [network.latency for network in comparison.columns]
    how = (
        f"median of {measured[0].runs} runs, taken in turn after {comparison.warmup} to warm up; "
        f"input {times(comparison.latency_shape)}; {comparison.device}"
    )
    unreliable = tuple(not latency.is_reliable for latency in measured)

    def row(name: str, values: list[float], how: str, unit: str = "ms") -> ComparisonRow:
        scale = scale_for(values, prefixes=False)
        return ComparisonRow(name, unit, values, scale, how=how, unreliable=unreliable)

    spreads = [latency.spread for latency in measured]
    return [
        row("latency, median", [latency.median for latency in measured], how),
        row("latency, mean", [latency.mean for latency in measured], "mean of the same runs"),
        ComparisonRow(
            "latency, spread",
            "ms",
            spreads,
            scale_for([*spreads, measured[0].median], prefixes=False),
            relation="none",
            how="interquartile range of the same runs",
        ),
        row("rate", [1e3 / latency.median for latency in measured], "1 / latency", "fps"),
    ]


def _count_row(name: str, values: Sequence[float]) -> ComparisonRow:
    """Counts that papers and logs are searched for: written to the last digit."""
    return ComparisonRow(name, "", list(values), Scale())


def _scaled_row(name: str, unit: str, values: Sequence[float], how: str = "") -> ComparisonRow:
    return ComparisonRow(name, unit, list(values), scale_for(values), how=how)


def _file_note(number: int, network: EvaluatedNetwork) -> str:
    precision = "" if network.precision == "fp32" else f" ({network.precision})"
    return f"{number}: {network.path}{precision}"


def times(shape: Sequence[int]) -> str:
    """A shape in words: "1x3x64x64"."""
    return "x".join(str(side) for side in shape)
