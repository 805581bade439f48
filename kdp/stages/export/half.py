"""ONNX graphs in half precision."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

SCATTERS = ("ScatterElements", "ScatterND")
"""Operators that onnxruntime cannot run on a CPU in half precision if they add."""
SELECTIONS = ("ArgMax", "ArgMin", "TopK")
"""Operators that output indices: an input that is off by its rounding may select another one."""


def half_precision(proto: Any) -> Any:
    """A ModelProto with weights and products in half precision; inputs and outputs stay float32.

    Scatter operators stay in float32 too, between casts, and so does whatever only decides indices:
    the nearest of several similar token centres is often another one after rounding.
    """
    from onnxruntime.transformers.float16 import (
        DEFAULT_OP_BLOCK_LIST,
        convert_float_to_float16,
    )
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = convert_float_to_float16(
        proto,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *SCATTERS],
        node_block_list=sorted(selecting_nodes(proto.graph)),
    )
    _skip_round_trips(half.graph)
    # The conversion appends its casts, and a graph lists every node after those that it reads.
    OnnxModel.graph_topological_sort(half.graph, is_deterministic=True)
    return half


def _skip_round_trips(graph: Any) -> None:
    """Let nodes in float32 read each other, where the conversion rounds to half precision between.

    Args:
        graph: an ONNX GraphProto with the types that the conversion noted; they are removed.
    """
    from onnx import TensorProto

    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)}
    del graph.value_info[:]
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    unrounded = {}
    for name, cast in casts.items():
        rounding = casts.get(cast.input[0])
        widens = cast.attribute[0].i == TensorProto.FLOAT
        if rounding and widens and types.get(rounding.input[0]) == TensorProto.FLOAT:
            unrounded[name] = rounding.input[0]
    for node in graph.node:
        node.input[:] = [unrounded.get(name, name) for name in node.input]
    _remove_unread(graph, casts)


def _remove_unread(graph: Any, nodes: dict[str, Any]) -> None:
    """Remove those of the nodes whose output, by which they are listed, nothing reads."""
    read = {name for node in graph.node for name in node.input}
    read.update(output.name for output in graph.output)
    for node in [node for name, node in nodes.items() if name not in read]:
        graph.node.remove(node)


def selecting_nodes(graph: Any) -> set[str]:
    """Names of the nodes that select indices, and of those whose outputs only such nodes read.

    Args:
        graph: an ONNX GraphProto whose nodes have names, each after those that it reads.
    """
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node.name)
    outputs = {output.name for output in graph.output}
    names: set[str] = set()
    for node in reversed(graph.node):
        own_readers = [reader for name in node.output for reader in readers[name]]
        is_internal = bool(own_readers) and outputs.isdisjoint(node.output)
        if node.op_type in SELECTIONS or (is_internal and names.issuperset(own_readers)):
            names.add(node.name)
    return names
