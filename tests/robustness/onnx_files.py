"""ONNX files with other metadata, operations, sizes or data."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from tests.robustness.mutations import TEXTS, mutate_tree, odd_value


def damaged_onnx(random: Random, data: bytes, mark: Path) -> bytes:
    """Change a model in one to three places; a real model stays one, mostly.

    Args:
        random: decides.
        data: the model.
        mark: see `tests.robustness.mutations.odd_value`.
    """
    import onnx

    model = onnx.load_from_string(data)
    changes = (_metadata, _metadata, _metadata, _node, _constant, _input, _output, _whole)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(changes)(random, model, mark)
    try:
        return bytes(model.SerializeToString())
    except ValueError:  # texts that protobuf cannot encode
        return data[::2]


def _metadata(random: Random, model: Any, mark: Path) -> None:
    if not model.metadata_props:
        return
    entry = model.metadata_props[0]
    try:
        tree = {"whole": json.loads(entry.value)}
    except ValueError:
        return
    for _ in range(random.choice((1, 1, 2, 5))):
        mutate_tree(random, tree, mark)
    entry.value = json.dumps(tree.get("whole"), default=str, skipkeys=True)
    if random.random() < 0.1:
        entry.value = random.choice(("", "{", "[]", "null", "1", '"x"', entry.value[:-9]))
    if random.random() < 0.05:
        entry.key = "other"


def _node(random: Random, model: Any, mark: Path) -> None:
    nodes = model.graph.node
    if not nodes:
        return
    node = random.choice(nodes)
    match random.randrange(6):
        case 0:
            nodes.remove(node)
        case 1:
            node.op_type = random.choice(("Identity", "Loop", "Nothing", "Sqrt", "Log", "Shape"))
        case 2:
            node.domain = random.choice(("com.microsoft", "x", "ai.onnx.ml"))
        case 3 if node.input:
            node.input[0] = random.choice(("", "nothing", node.output[0] if node.output else ""))
        case 4 if node.attribute:
            node.attribute[0].i = random.choice((-1, 0, 10**9))
        case 5:
            nodes.append(node)


def _constant(random: Random, model: Any, mark: Path) -> None:
    constants = model.graph.initializer
    if not constants:
        return
    constant = random.choice(constants)
    match random.randrange(5):
        case 0 if constant.dims:
            constant.dims[0] = random.choice((0, -1, 10**6, 2**62, constant.dims[0] + 1))
        case 1:
            constant.raw_data = b"\xff" * len(constant.raw_data)
        case 2:
            constant.data_type = random.randrange(25)
        case 3:
            constant.data_location = 1
            location = random.choice(("/etc/passwd", "../x", "data"))
            constant.external_data.add(key="location", value=location)
        case 4:
            constant.raw_data = constant.raw_data[: len(constant.raw_data) // 2]


def _input(random: Random, model: Any, mark: Path) -> None:
    _shape(random, model.graph.input)


def _output(random: Random, model: Any, mark: Path) -> None:
    _shape(random, model.graph.output)


def _shape(random: Random, values: Any) -> None:
    if not values:
        return
    value = values[0]
    shape = value.type.tensor_type.shape.dim
    match random.randrange(6):
        case 0 if shape:
            random.choice(shape).dim_value = random.choice((-1, 0, 1, 7, 10**9))
        case 1 if shape:
            shape.pop()
        case 2:
            value.type.tensor_type.elem_type = random.randrange(1, 20)
        case 3:
            value.name = random.choice(("", "x", "other"))
        case 4:
            values.pop()
        case 5:
            values.append(value)


def _whole(random: Random, model: Any, mark: Path) -> None:
    match random.randrange(4):
        case 0:
            model.ir_version = random.choice((0, 3, 99, 2**40))
        case 1 if model.opset_import:
            model.opset_import[0].version = random.choice((0, 1, 7, 999))
        case 2:
            model.metadata_props.add(
                key=random.choice(("kdp", "x")), value=str(odd_value(random, mark))
            )
        case 3:
            texts = [text for text in TEXTS if text.isascii()]
            model.producer_name = random.choice(texts)
