"""ONNX files that somebody has edited are refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.checksums import UNKNOWN_CHECKSUM, with_checksum_inside
from kdp.errors import KdpError
from kdp.models.onnx_file import CHECKSUM, load_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ARCH = {"name": "mask_classifier", "args": {}}
DESCRIPTION = {"arch": ARCH, "parameters": 3, "nonzero": 3}


def _write(
    path: Path,
    description: Any = DESCRIPTION,
    shape: tuple[int, ...] = (1, 3, 8, 8),
    checksum: bool = False,
) -> Path:
    """A file whose network returns its input."""
    ends = [onnx.helper.make_tensor_value_info(name, 1, shape) for name in ("x", "y")]
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", ends[:1], ends[1:])
    versions = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=versions, ir_version=9)
    properties = {"kdp": json.dumps(description)}
    if checksum:
        properties[CHECKSUM] = UNKNOWN_CHECKSUM.decode()
    onnx.helper.set_model_props(model, properties)
    content = model.SerializeToString()
    path.write_bytes(with_checksum_inside(content) if checksum else content)
    return path


def test_a_described_file_is_read(tmp_path: Path) -> None:
    model, arch, _ = load_onnx(_write(tmp_path / "a.onnx"))
    assert (model.fixed_size, arch.name) == ((8, 8), "mask_classifier")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"arch": "mask_classifier"}, "arch"),
        ({"arch": {"name": "mask_classifier", "args": [1]}}, "arch.args"),
        ({"parameters": "many"}, "parameters"),
        ({"nonzero": -1}, "nonzero"),
        ({"source": "teacher.pth"}, "source"),
        ({"precision": 8}, "precision"),
    ],
)
def test_a_wrong_description_is_named(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    path = _write(tmp_path / "a.onnx", {**DESCRIPTION, **change})
    with pytest.raises(KdpError, match=rf"a\.onnx is damaged at its description\.{place}"):
        load_onnx(path)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3, 8), (1, 3, 8, 8, 8)])
def test_inputs_that_no_network_of_kdp_has_are_named(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    with pytest.raises(KdpError, match=r"a\.onnx is damaged: it does not read one batch"):
        load_onnx(_write(tmp_path / "a.onnx", shape=shape))


def test_a_flipped_bit_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.onnx", checksum=True)
    load_onnx(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        in_label = content.index(UNKNOWN_CHECKSUM[:10]) <= place < len(content) - 8
        with suppress(KdpError) if in_label else pytest.raises(KdpError, match=r"a\.onnx"):
            load_onnx(path)


def _broken(path: Path, fault: str) -> None:
    """Let onnxruntime fail where it parses a file, checks its graph, or runs it."""
    _write(path)
    model = onnx.load(path)
    node = model.graph.node[0]
    if fault == "parse":
        path.write_bytes(path.read_bytes()[:-40])
        return
    if fault == "unknown operator":
        node.op_type = "Identitty"
    elif fault == "missing input":
        node.input[0] = "z"
    elif fault == "shapes":
        node.op_type = "Reshape"
        node.input.append("shape")
        model.graph.initializer.append(onnx.helper.make_tensor("shape", 7, [2], [5, 7]))
        del model.graph.output[0].type.tensor_type.shape.dim[:]
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("fault", ["parse", "unknown operator", "missing input", "shapes"])
def test_errors_of_onnxruntime_are_one_line(
    tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    _broken(path, fault)
    with pytest.raises(KdpError, match=r"a\.onnx cannot be run by onnxruntime: [^\n]+$"):
        load_onnx(path)[0](torch.zeros(1, 3, 8, 8))
    assert capfd.readouterr() == ("", "")


def _growing(path: Path, operator: str) -> None:
    """A file of a few hundred bytes that adds a constant of 40 GB to its input."""
    _write(path)
    model, make = onnx.load(path), onnx.helper
    sides = make.make_tensor("sides", 7, [2], [100_000, 100_000])
    one = make.make_tensor("one", 1, [1, 1], [1.0])
    model.graph.initializer.extend([sides, one])
    inputs = {"Expand": ["one", "sides"], "Tile": ["one", "sides"], "ConstantOfShape": ["sides"]}
    nodes = [make.make_node(operator, inputs[operator], ["huge"])] if operator in inputs else []
    if operator == "Concat":  # twice as large with each node
        names = ["one", *(f"c{number}" for number in range(32)), "huge"]
        for before, after in pairwise(names):
            nodes.append(make.make_node("Concat", [before, before], [after], axis=0))
    if operator == "sparse":
        values, places = make.make_tensor("huge", 1, [1], [1.0]), make.make_tensor("i", 7, [1], [0])
        model.graph.sparse_initializer.append(
            make.make_sparse_tensor(values, places, [100_000, 100_000])
        )
    nodes.append(make.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
    nodes.append(make.make_node("Add", ["x", "sum"], ["y"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@pytest.mark.parametrize("operator", ["Expand", "Tile", "ConstantOfShape", "Concat", "sparse"])
def test_constants_that_would_grow_are_refused_at_once(tmp_path: Path, operator: str) -> None:
    path = tmp_path / "a.onnx"
    _growing(path, operator)
    assert path.stat().st_size < 4096
    with pytest.raises(
        KdpError, match=r"a\.onnx grows to more than 250,000,000 constants: refused"
    ):
        load_onnx(path)
