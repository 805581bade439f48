"""`kdp export`: a network for programs that have no PyTorch."""

from __future__ import annotations

import copy
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdp import __version__
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import claim, sha256, write_atomic
from kdp.measure.complexity import parameters
from kdp.models.loading import Arch, load_network
from kdp.models.onnx_file import NEEDED, PROPERTY, OnnxNetwork
from kdp.tasks import task_for

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, that rounding in float32 may explain."""

Format = Literal["onnx", "torchscript"]
Precision = Literal["fp32", "fp16", "int8"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torchscript": ".pt"}
AXES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        path: the file.
        difference: between its outputs and PyTorch's on a probe, relative to the largest output.
        input_shape: of the probe.
        open_axes: names of the axes whose length is free.
    """

    path: Path
    difference: float
    input_shape: tuple[int, ...]
    open_axes: tuple[str, ...]


def export(
    file: Path,
    config: Config,
    to: Format,
    precision: Precision = "fp32",
    size: Sequence[int] | None = None,
    target: Path | None = None,
) -> Exported:
    """Write a network in another format, once what was written is run and gives the same.

    Args:
        file: an artifact or a foreign checkpoint.
        config: of the task.
        to: the format.
        precision: `fp16` has weights and products in half precision, `int8` has 8-bit weights
            and quantises activations while it runs; both for ONNX, with inputs in float32.
        size: (height, width) of the input, for a network that is exported for one size alone.
        target: where to write (default: beside `file`).

    Raises:
        KdpError: unreadable, packages are missing, the network cannot be exported in this way,
            or what was exported does not give what PyTorch gives.
    """
    if to == "torchscript" and precision != "fp32":
        raise KdpError(f"TorchScript is written in fp32; {precision} is for ONNX")
    model, arch, _ = load_network(file)
    task = task_for(arch, config)
    target = target or _beside(file, to, precision)
    open_axes = task.open_axes
    probe = task.example(size or task.latency_size)
    if 0 in open_axes:  # the exporter takes a batch of one for a constant
        probe = torch.cat([probe, probe.flip(-1)])
    with torch.no_grad():
        expected = model(probe)
    with claim(target), _quiet():
        content, run = _WRITERS[to](model, probe, open_axes, precision, _about(file, arch, model))
        difference = _difference(run(probe), expected)
        if precision == "fp32" and not difference <= TOLERANCE:
            raise KdpError(f"the exported network differs from the original by {difference:.2g}")
        write_atomic(target, content)
    return Exported(target, difference, tuple(probe.shape), tuple(AXES[i] for i in open_axes))


Written = tuple[bytes, Callable[[Tensor], Tensor]]


def _onnx(
    model: nn.Module, probe: Tensor, open_axes: Sequence[int], precision: str, about: dict[str, Any]
) -> Written:
    proto = _proto(model, probe, open_axes)
    proto = _PRECISIONS[precision](proto)
    entry = proto.metadata_props.add()
    entry.key, entry.value = PROPERTY, json.dumps({**about, "precision": precision})
    content = proto.SerializeToString(deterministic=True)
    return content, OnnxNetwork(content, "the exported network")


def _torchscript(
    model: nn.Module, probe: Tensor, open_axes: Sequence[int], precision: str, about: dict[str, Any]
) -> Written:
    buffer = io.BytesIO()
    traced = torch.jit.trace(model, (probe,), check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={PROPERTY: json.dumps(about)})
    buffer.seek(0)
    return buffer.getvalue(), torch.jit.load(buffer)


_WRITERS: dict[str, Callable[..., Written]] = {"onnx": _onnx, "torchscript": _torchscript}


def _proto(model: nn.Module, probe: Tensor, open_axes: Sequence[int]) -> Any:
    """An ONNX ModelProto with weights inside."""
    shapes = dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC)
    try:
        program = torch.onnx.export(
            copy.deepcopy(model),
            (probe,),
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=(shapes,),
            dynamo=True,
            verbose=False,
        )
    except ImportError as error:
        raise KdpError(NEEDED) from error
    except Exception as error:  # the exporter's exceptions have no base but this
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise KdpError(f"this network cannot be exported to ONNX: {reason}") from error
    assert program is not None
    proto = program.model_proto
    _strip(proto.graph)
    _name_axes(proto.graph, open_axes)
    return proto


def _strip(graph: Any) -> None:
    """Leave out where in whose Python files a node came from, and shapes that can be inferred.

    Some of those shapes are wrong, too: they are from before operations were fused.
    """
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("doc_string")
        del part.metadata_props[:]


def _name_axes(graph: Any, open_axes: Sequence[int]) -> None:
    """ "batch" instead of "s72"."""
    dims = graph.input[0].type.tensor_type.shape.dim
    names = {dims[axis].dim_param: AXES[axis] for axis in open_axes}
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)


def _half(proto: Any) -> Any:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True)


def _dynamic_int8(proto: Any) -> Any:
    """8-bit weights; unsigned ones, for which onnxruntime has the faster convolution."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(proto, target, weight_type=QuantType.QUInt8)
        return onnx.load(target)


_PRECISIONS: dict[str, Callable[[Any], Any]] = {
    "fp32": lambda proto: proto,
    "fp16": _half,
    "int8": _dynamic_int8,
}


def _about(file: Path, arch: Arch, model: nn.Module) -> dict[str, Any]:
    total, nonzero = parameters(model)
    return {
        "arch": arch,
        "parameters": total,
        "nonzero": nonzero,
        "source": {"path": str(file), "sha256": sha256(file)},
        "kdp": __version__,
    }


def _beside(file: Path, to: str, precision: str) -> Path:
    kind = "" if precision == "fp32" else f"_{precision}"
    return file.with_name(f"{file.stem}{kind}{SUFFIXES[to]}")


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks about themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
