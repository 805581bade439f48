"""Constants of an ONNX graph that follow from a few numbers, written as what computes them.

The exporter folds whatever does not depend on the input: for one size of image, tables of indices
and repeated token centres outweigh the weights. Runtimes fold them again when they load a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SMALLEST = 1024
"""Bytes below which a constant stays as it is."""
MOST_RUNS = 8
"""Pieces of constant step that a table of indices may have."""


def compact_constants(graph: Any) -> None:
    """Store equal constants once, and repetitions and index tables as nodes, in place.

    Args:
        graph: an ONNX GraphProto.
    """
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return  # parts of the graph inside nodes read constants too
    _merge_equal(graph)
    nodes: list[Any] = []
    kept: list[Any] = []
    for constant in graph.initializer:
        replacement = _computed(constant)
        nodes += replacement.nodes if replacement else []
        kept += replacement.constants if replacement else [constant]
    ordered = [*nodes, *graph.node]
    _set(graph.initializer, kept)
    _set(graph.node, ordered)


def _set(field_of_graph: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field_of_graph[:]
    field_of_graph.extend(copies)


def _merge_equal(graph: Any) -> None:
    first: dict[Any, str] = {}
    names: dict[str, str] = {}
    kept = []
    for constant in graph.initializer:
        key = (constant.data_type, tuple(constant.dims), numpy_helper.to_array(constant).tobytes())
        names[constant.name] = first.setdefault(key, constant.name)
        if names[constant.name] == constant.name:
            kept.append(constant)
    if any(output.name in names for output in graph.output):
        return
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    _set(graph.initializer, kept)


@dataclass
class _Replacement:
    """Nodes whose last output has the name of a constant, and the constants that they read."""

    name: str
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, values: Any, dtype: Any) -> str:
        name = f"{self.name}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def node(self, kind: str, inputs: list[str], last: bool = False, **attributes: Any) -> str:
        output = self.name if last else f"{self.name}_{kind}_{len(self.nodes)}"
        node = helper.make_node(kind, inputs, [output], f"node_{output}", **attributes)
        self.nodes.append(node)
        return output

    @property
    def nbytes(self) -> int:
        return sum(map(onnx.ModelProto.ByteSize, (*self.nodes, *self.constants)))


def _computed(constant: Any) -> _Replacement | None:
    """What computes a constant in fewer bytes; None if nothing does."""
    values = numpy_helper.to_array(constant)
    if values.nbytes < SMALLEST:
        return None
    attempts: tuple[Callable[[str, np.ndarray], _Replacement | None], ...] = (_runs, _expanded)
    for attempt in attempts:
        replacement = attempt(constant.name, values)
        if replacement and replacement.nbytes < values.nbytes:
            return replacement
    return None


def _expanded(name: str, values: np.ndarray) -> _Replacement | None:
    """One copy of what repeats along axes, and an Expand."""
    small = values
    for axis in range(values.ndim):
        one = small.take([0], axis)
        small = one if np.array_equal(np.broadcast_to(one, small.shape), small) else small
    if small.shape == values.shape:
        return None
    replacement = _Replacement(name)
    inputs = [replacement.constant(small, small.dtype)]
    inputs.append(replacement.constant(values.shape, np.int64))
    replacement.node("Expand", inputs, last=True)
    return replacement


def _runs(name: str, values: np.ndarray) -> _Replacement | None:
    """A table of indices that count up or down, as ranges."""
    if values.dtype != np.int64:
        return None
    runs = list(_split(values.ravel()))
    if len(runs) > MOST_RUNS:
        return None
    replacement = _Replacement(name)
    ranges = [
        replacement.node("Range", [replacement.constant(number, np.int64) for number in run])
        for run in runs
    ]
    flat = replacement.node("Concat", ranges, axis=0) if len(ranges) > 1 else ranges[0]
    shape = replacement.constant(values.shape, np.int64)
    replacement.node("Reshape", [flat, shape], last=True)
    return replacement


def _split(flat: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Start, end and step of successive runs, until there are too many."""
    start, count = 0, 0
    while start < len(flat) and count <= MOST_RUNS:
        step = int(flat[start + 1] - flat[start]) if start + 1 < len(flat) else 1
        breaks = np.flatnonzero(np.diff(flat[start:]) != step)
        length = int(breaks[0]) + 1 if len(breaks) else len(flat) - start
        if step == 0:  # a Range has no step of zero
            step, length = 1, 1
        first = int(flat[start])
        yield first, first + step * length, step
        start, count = start + length, count + 1
