"""What a small ONNX file may grow to, checked before onnxruntime computes its constants.

onnxruntime folds whatever depends on constants alone when it opens a file: a few bytes that say
`Expand` to a large shape take all memory.
"""

from __future__ import annotations

import math
from typing import Any

from kdp.errors import KdpError
from kdp.models.size_limit import MAX_ELEMENTS


def check_growth(content: bytes, name: str) -> None:
    """Refuse a file whose constants are larger than any network that kdp can train.

    Shapes that are not known without running the file are not counted, and without the package onnx
    nothing is.

    Args:
        content: of the file.
        name: for the message.

    Raises:
        KdpError: they are.
    """
    try:
        from onnx import load_from_string
        from onnx.shape_inference import infer_shapes

        graph = infer_shapes(load_from_string(content), data_prop=True).graph
    except Exception:  # no package, or a damaged file: onnxruntime will say what is wrong
        return
    if _constant_elements(graph) > MAX_ELEMENTS:
        raise KdpError(f"{name} grows to more than {MAX_ELEMENTS:,} constants: refused")


def _constant_elements(graph: Any) -> int:
    """Numbers in all values that depend on constants alone, the stored ones not included."""
    sizes = {value.name: _elements(value.type) for value in (*graph.value_info, *graph.output)}
    constant = {tensor.name for tensor in graph.initializer}
    constant |= {tensor.values.name for tensor in graph.sparse_initializer}
    total = sum(math.prod(tensor.dims) for tensor in graph.sparse_initializer)
    for node in graph.node:
        if constant.issuperset(filter(None, node.input)):
            constant.update(node.output)
            total += sum(sizes.get(output, 0) for output in node.output)
    return total


def _elements(kind: Any) -> int:
    """Of a tensor; 0 where a side is not known."""
    return math.prod(dim.dim_value for dim in kind.tensor_type.shape.dim)
