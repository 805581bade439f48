"""Constants of exported graphs that are written as what computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from kdp.stages.export.constants import compact_constants  # noqa: E402

RANDOM = np.random.default_rng(0)
MIRRORED = np.concatenate([np.arange(1000), np.arange(999, 900, -1)])


def model(**constants: np.ndarray) -> Any:
    """A graph that outputs every constant, through a node of its own, times one."""
    one = {name: numpy_helper.from_array(a, name) for name, a in constants.items()}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in constants]
    outputs = [
        helper.make_tensor_value_info(f"{name}_out", constant.data_type, constant.dims)
        for name, constant in one.items()
    ]
    unused = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "test", [unused], outputs, list(one.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def compacted(**constants: np.ndarray) -> Any:
    proto = model(**constants)
    compact_constants(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": np.zeros(1, np.float32)})
    for output, expected in zip(outputs, constants.values(), strict=True):
        np.testing.assert_array_equal(output, expected)
        assert output.dtype == expected.dtype
    return proto


@pytest.mark.parametrize(
    "values",
    [
        np.arange(4096),
        MIRRORED[:, None],
        np.arange(2000, 0, -2).reshape(10, 100),
        np.broadcast_to(RANDOM.random((1, 4, 8, 10), np.float32), (64, 4, 8, 10)),
        np.broadcast_to(RANDOM.random((30, 1), np.float32), (30, 40)),
        np.full((50, 50), 3),
        np.zeros((3, 700), np.bool_),
    ],
)
def test_a_constant_that_follows_from_few_numbers_is_computed(values: np.ndarray) -> None:
    assert compacted(c=np.ascontiguousarray(values)).ByteSize() < values.nbytes / 3


def test_equal_constants_are_stored_once() -> None:
    weights = RANDOM.random((20, 30), np.float32)
    proto = compacted(a=weights, b=weights.copy(), c=weights.reshape(30, 20))
    assert len(proto.graph.initializer) == 2


@pytest.mark.parametrize("values", [RANDOM.random((20, 30), np.float32), RANDOM.permutation(900)])
def test_other_constants_stay_as_they_are(values: np.ndarray) -> None:
    before = model(c=values)
    assert compacted(c=values) == before
