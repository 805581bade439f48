"""Rows and labels of a comparison, from measurements given by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from kdp.measure.latency import Latency
from kdp.stages.compare.compare import Comparison, MeasuredNetwork
from kdp.stages.compare.labels import short_labels
from kdp.stages.compare.rows import ComparisonRow, comparison_rows, notes
from kdp.stages.compare.tables import show, to_csv, to_json
from kdp.types import Arch

STEADY = Latency(10.0, 9.9, 10.1, 50, 10.2)
NOISY = Latency(10.5, 9.0, 11.5, 50, 12.0)


def network(label: str, macs: int, latency: Latency = STEADY) -> MeasuredNetwork:
    return MeasuredNetwork(
        label=label,
        path=Path(f"{label}.pth"),
        arch=Arch("catanet", {}),
        stage="train",
        quality={"val": {"accuracy": 0.9534, "f1": 0.95, "mask as face": 3.0}},
        parameters=8_556,
        nonzero=8_000,
        macs=macs,
        module_macs=macs,
        file_bytes=41_234,
        latency=latency,
        weight_bytes=34_224,
        precision="fp32",
        deployed_parameters=8_556,
    )


def compared(*networks: MeasuredNetwork) -> Comparison:
    shapes = (1, 3, 64, 64), (1, 3, 64, 64)
    return Comparison(list(networks), "accuracy", {"val": 9}, "counter", "thop", *shapes, 5, "cpu")


def rows(comparison: Comparison) -> dict[str, ComparisonRow]:
    return {row.name: row for row in comparison_rows(comparison)}


def printed(comparison: Comparison) -> str:
    text = io.StringIO()
    show(comparison, Console(width=100, file=text))
    return text.getvalue()


def test_units_fit_the_smallest_network() -> None:
    row = rows(compared(network("a", 12_000_000), network("b", 4_231_000)))["MACs, all"]
    assert row.title == "MACs, all, M"
    assert [row.scale.text(value) for value in row.values] == ["12.00", "4.23"]


def test_files_hold_raw_numbers() -> None:
    comparison = compared(network("a", 12_000_000), network("b", 4_231_000))
    line = next(line for line in to_csv(comparison).splitlines() if line.startswith('"MACs, all"'))
    assert line.startswith('"MACs, all",,12000000,4231000,ratio,1.0,0.35')
    row = next(row for row in json.loads(to_json(comparison))["rows"] if row["name"] == "file")
    assert (row["unit"], row["values"]) == ("B", [41_234, 41_234])
    assert json.loads(to_json(comparison))["protocol"] == "accuracy"


def test_accuracy_is_a_percentage_on_the_terminal_and_a_share_in_files() -> None:
    comparison = compared(network("a", 1000))
    assert "val accuracy, %" in printed(comparison)
    assert "95.34" in printed(comparison)
    assert rows(comparison)["val accuracy"].plain()["values"] == [0.9534]


def test_entries_of_a_confusion_matrix_are_counts_without_a_relation() -> None:
    row = rows(compared(network("a", 1), network("b", 1)))["val mask as face"]
    assert (row.scale.text(3.0), row.relative) == ("3", [None, None])


@pytest.mark.parametrize("noisy", [0, 1])
def test_an_unreliable_latency_has_no_ratio(noisy: int) -> None:
    latencies = [STEADY, STEADY]
    latencies[noisy] = NOISY
    pair = zip("ab", latencies, strict=True)
    comparison = compared(*(network(label, 10, latency) for label, latency in pair))
    for name in ("latency, median", "latency, mean", "rate"):
        row = rows(comparison)[name]
        assert row.relative[1] is None
        assert row.plain()["unreliable"][noisy] is True
    assert "10.5 (!)" in printed(comparison)
    assert any(note.startswith("(!) unreliable: ") for note in notes(comparison))


def test_a_steady_latency_has_a_ratio_and_no_warning() -> None:
    twice = replace(STEADY, median=20.0, q1=19.9, q3=20.1, mean=20.3)
    comparison = compared(network("a", 10), network("b", 10, twice))
    assert rows(comparison)["latency, median"].relative == [1.0, 2.0]
    assert rows(comparison)["latency, mean"].values == [10.2, 20.3]
    assert "unreliable" not in printed(comparison)


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["w/net_teacher.pth", "w/net_small.pth"], ["teacher", "small"]),
        (["a.pth", "a.onnx"], ["a.pth", "a.onnx"]),
        (["net.pth", "net.onnx", "net_int8.onnx"], ["net.pth", "net.onnx", "net_int8"]),
        (["mask.pth", "mask_pruned_pruned.pth"], ["mask", "mask_pruned"]),
        (
            ["mask_pruned.pth", "mask_pruned_pruned.pth"],
            ["mask_pruned", "mask_pruned_pruned"],
        ),
        (["face_mask.pth", "face_mask_small.pth"], ["face_mask", "face_mask_small"]),
        (["cat_a_x2.pth", "cat_a_x4.pth"], ["x2", "x4"]),
        (["one/net.pth", "two/net.pth"], ["one/net", "two/net"]),
        (["net.pth", "net.pth"], ["net", "net_2"]),
    ],
)
def test_labels_are_short_and_unique(paths: list[str], labels: list[str]) -> None:
    assert short_labels([Path(path) for path in paths]) == labels
