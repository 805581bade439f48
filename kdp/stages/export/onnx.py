"""Networks as ONNX, in single or half precision or with 8-bit weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdp.checksums import UNKNOWN_CHECKSUM, with_checksum_inside
from kdp.errors import KdpError, first_line
from kdp.models.onnx_file import CHECKSUM, NEEDED, PROPERTY, OnnxNetwork
from kdp.serialize import json_line
from kdp.tasks.export_spec import ExportFormat, ExportSpec, Runner
from kdp.temporary import temporary_folder

AXES = {0: "batch", 2: "height", 3: "width"}
"""Names of the axes of an input, in the files too."""


def onnx_format() -> ExportFormat:
    """ONNX, for every family."""
    return ExportFormat("ONNX", ".onnx", _write, tuple(_PRECISIONS))


def _write(
    model: nn.Module, example: Tensor, spec: ExportSpec, description: dict[str, Any], precision: str
) -> tuple[bytes, Runner]:
    proto = in_precision(onnx_proto(model, example, spec), precision)
    _check(proto)
    description = {
        **description,
        "precision": precision,
        "weight_bytes": constant_bytes(proto.graph),
    }
    properties = {**spec.properties(example.shape), PROPERTY: json_line(description)}
    properties[CHECKSUM] = UNKNOWN_CHECKSUM.decode()  # last, so that it is found from the end
    for key, value in properties.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    content = with_checksum_inside(proto.SerializeToString(deterministic=True))
    return content, OnnxNetwork(content, "the exported network")


def _check(proto: Any) -> None:
    """
    Raises:
        KdpError: the file would break the rules of the format, which some programs forgive.
    """
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the checker's exceptions have no base but this
        reason = first_line(error)
        raise KdpError(f"the exported network is not valid ONNX: {reason}") from error


def constant_bytes(graph: Any) -> int:
    """Bytes of all constants of a graph."""
    from onnx.numpy_helper import to_array

    return sum(to_array(constant).nbytes for constant in graph.initializer)


def onnx_proto(model: nn.Module, example: Tensor, spec: ExportSpec) -> Any:
    """An ONNX ModelProto with the weights inside.

    Args:
        model: in eval mode.
        example: an input.
        spec: names of the tensors, and axes of the input that take any length.

    Raises:
        KdpError: packages are missing, or the network cannot be exported.
    """
    shapes = dict.fromkeys(spec.dynamic_axes, torch.export.Dim.DYNAMIC)
    try:
        from kdp.stages.export.constants import compact_constants

        program = torch.onnx.export(
            copy.deepcopy(model),  # the exporter changes the network
            (example,),
            input_names=[spec.input_name],
            output_names=[spec.output_name],
            dynamic_shapes=(shapes,),
            dynamo=True,
            verbose=False,
        )
    except ImportError as error:
        raise KdpError(NEEDED) from error
    except Exception as error:  # the exporter's exceptions have no base but this
        reason = first_line(error.__cause__ or error)
        raise KdpError(f"this network cannot be exported to ONNX: {reason}") from error
    assert program is not None
    proto = program.model_proto
    _strip(proto.graph)
    _name_axes(proto.graph, spec)
    compact_constants(proto.graph)
    return proto


def _strip(graph: Any) -> None:
    """Remove the paths of Python files, and shapes that can be inferred.

    Some of those shapes are wrong: the exporter wrote them before it fused operations.
    """
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        del part.metadata_props[:]


def _name_axes(graph: Any, spec: ExportSpec) -> None:
    """Give dynamic axes their names in place of the exporter's numbers."""
    inputs, outputs = (
        [dim for value in values for dim in value.type.tensor_type.shape.dim if dim.dim_param]
        for values in (graph.input, graph.output)
    )
    dims = graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: AXES[axis] for axis in spec.dynamic_axes}
    for dim in (*inputs, *outputs):
        dim.dim_param = names.get(dim.dim_param, dim.dim_param)
    for dim in () if spec.names_output_axes else outputs:
        dim.ClearField("dim_param")


def _half(proto: Any) -> Any:
    from kdp.stages.export.half import half_precision

    return half_precision(proto)


def _dynamic_int8(proto: Any) -> Any:
    """8-bit weights; unsigned, as onnxruntime's convolution is faster for those."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with temporary_folder() as folder:
        target = folder / "int8.onnx"
        quantize_dynamic(proto, target, weight_type=QuantType.QUInt8)
        return onnx.load(target)


_PRECISIONS: dict[str, Callable[[Any], Any]] = {
    "fp32": lambda proto: proto,
    "fp16": _half,
    "int8": _dynamic_int8,
}


def in_precision(proto: Any, precision: str) -> Any:
    """A ModelProto with its weights in fp32, fp16 or int8.

    Raises:
        KdpError: packages are missing, or the network cannot be converted.
    """
    try:
        return _PRECISIONS[precision](proto)
    except ImportError as error:
        raise KdpError(NEEDED) from error
    except Exception as error:  # the converters' exceptions have no base but this
        raise KdpError(
            f"this network cannot be converted to {precision}: {first_line(error)}"
        ) from error
