"""Graphs in half precision: what stays in single precision, and that others can run the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from kdp.stages.export.half import half_precision, selecting_nodes  # noqa: E402

ROWS, COLUMNS = 4, 3
INDICES = np.array([[2], [0], [2], [2]])
"""Rows to scatter to, one of them three times."""


def model(
    nodes: list[Any],
    constants: dict[str, np.ndarray],
    kind: int = TensorProto.FLOAT,
    columns: int = COLUMNS,
) -> Any:
    """A graph from `x`, (4, 3), to `y`, (4, columns)."""
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    for number, node in enumerate(nodes):
        node.name = f"node_{number}"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, COLUMNS])
    y = helper.make_tensor_value_info("y", kind, [ROWS, columns])
    graph = helper.make_graph(nodes, "test", [x], [y], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(proto: Any, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    # Fusing of operators would restore some of what the conversion rounds.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": x})
    return np.asarray(output)


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "none"])
@pytest.mark.parametrize("operator", ["ScatterND", "ScatterElements"])
def test_what_scatters_runs_in_half_precision(operator: str, reduction: str) -> None:
    """Sums of windows that overlap are scattered with addition, as in CATANet."""
    indices = INDICES if operator == "ScatterND" else INDICES.repeat(COLUMNS, 1)
    constants = {
        "ones": np.ones((ROWS, COLUMNS), np.float32),
        "indices": indices,
        "two": np.array(2, np.float32),
    }
    scatter = helper.make_node(operator, ["ones", "indices", "x2"], ["y"], reduction=reduction)
    nodes = [helper.make_node("Mul", ["x", "two"], ["x2"]), scatter]
    x = np.tile(np.arange(1, ROWS + 1, dtype=np.float32)[:, None] / 8, COLUMNS)
    expected = run(model(nodes, constants), x)
    half = half_precision(model(nodes, constants))
    np.testing.assert_allclose(run(half, x), expected, rtol=1e-3)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert {cast.attribute[0].i for cast in casts} == {TensorProto.FLOAT, TensorProto.FLOAT16}


CENTRES = np.array([[1, 0, 0], [1, 1e-4, 0], [0, 1, 0], [0, 0, 1]], np.float32)
"""Of which the first two are equal in half precision."""


def selections() -> dict[str, list[Any]]:
    """Nodes that find the most similar centre of each row."""
    similarity = helper.make_node("MatMul", ["x", "centres"], ["similarity"])
    flip = helper.make_node("Neg", ["similarity"], ["distance"])
    top = helper.make_node("TopK", ["similarity", "one"], ["values", "y"], axis=1)
    return {
        "ArgMax": [similarity, helper.make_node("ArgMax", ["similarity"], ["y"], axis=1)],
        "ArgMin": [similarity, flip, helper.make_node("ArgMin", ["distance"], ["y"], axis=1)],
        "TopK": [similarity, top],
    }


@pytest.mark.parametrize("operator", selections())
def test_what_selects_indices_keeps_its_precision(operator: str) -> None:
    nodes = selections()[operator]
    constants = {"centres": np.ascontiguousarray(CENTRES.T), "one": np.array([1])}
    x = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    proto = model(nodes, constants, TensorProto.INT64, columns=1)
    expected = run(proto, x)
    assert expected.ravel()[0] == 1
    np.testing.assert_array_equal(run(half_precision(proto), x), expected)


def test_what_also_reaches_the_output_is_rounded() -> None:
    """The values of a network are in half precision, though indices follow from them too."""
    nodes = [
        helper.make_node("MatMul", ["x", "centres"], ["z"]),
        helper.make_node("ArgMax", ["z"], ["index"], axis=1, keepdims=1),
        helper.make_node("GatherElements", ["z", "index"], ["y"], axis=1),
    ]
    graph = model(nodes, {"centres": np.ascontiguousarray(CENTRES.T)}).graph
    assert selecting_nodes(graph) == {"node_1"}
