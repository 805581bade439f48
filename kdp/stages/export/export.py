"""`kdp export`: a network for programs that have no PyTorch."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
import zipfile
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
from kdp.files import file_lock, sha256, write_atomic
from kdp.measure.complexity import parameters, run_checked
from kdp.models import with_decoding
from kdp.models.loading import load_network
from kdp.models.onnx_file import PROPERTY, OnnxNetwork
from kdp.models.ultralytics_file import write_ultralytics
from kdp.models.ultralytics_names import to_ultralytics
from kdp.serialize import json_line
from kdp.stages.export.onnx import AXES, constant_bytes, in_precision, onnx_proto
from kdp.tasks import task_for
from kdp.tasks.base import Task
from kdp.types import Arch

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.5}
"""Largest difference of the outputs, relative to the largest one, that a precision may explain;
of boxes and of probabilities each."""

Format = Literal["onnx", "torchscript", "ultralytics"]
Precision = Literal["fp32", "fp16", "int8"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torchscript": ".torchscript", "ultralytics": ".pt"}
NAMES: dict[str, str] = {
    "onnx": "ONNX",
    "torchscript": "TorchScript",
    "ultralytics": "Ultralytics' format",
}


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        path: the file.
        difference: between its outputs and PyTorch's on a probe, relative to the largest output.
        input_shape: of the probe.
        dynamic_axes: names of the axes whose length is free.
    """

    path: Path
    difference: float
    input_shape: tuple[int, ...]
    dynamic_axes: tuple[str, ...]


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
    if to != "onnx" and precision != "fp32":
        raise KdpError(f"{NAMES[to]} is written in fp32; {precision} is for ONNX")
    model, arch, _ = load_network(file)
    if to != "ultralytics":
        model, arch = with_decoding(model, arch)
    if size is not None:
        arch = _of_size(arch, size, task_for(arch, config).dynamic_axes)
    task = task_for(arch, config)
    target = _checked(target or _beside(file, to, precision), file, to)
    probes = _probes(task, size or task.latency_size)
    expected = [run_checked(model, probe) for probe in probes]
    with file_lock(target), _quiet():
        about = _about(file, arch, model, task)
        content, run = _WRITERS[to](model, probes[0], task.dynamic_axes, precision, about)
        pairs = zip(probes, expected, strict=True)
        parts = task.output_splits if to != "ultralytics" else ()  # that one is not decoded
        differences = [_difference(run(probe), wanted, parts) for probe, wanted in pairs]
        wrong = [found for found in differences if not found <= TOLERANCES[precision]]
        if wrong:  # not a number counts too
            raise KdpError(f"the exported network differs from the original by {wrong[0]:.2g}")
        write_atomic(target, content)
    names = tuple(AXES[axis] for axis in task.dynamic_axes)
    return Exported(target, max(differences), tuple(probes[0].shape), names)


def _of_size(arch: Arch, size: Sequence[int], dynamic_axes: Sequence[int]) -> Arch:
    """The architecture as programs are to find it that run it at this one size."""
    if "image_size" not in arch.args or 2 in dynamic_axes:
        return arch
    height, width = size
    if height != width:
        raise KdpError(f"--size {height} {width}: {arch.name} reads squares")
    return arch.with_args(image_size=height)


def _checked(target: Path, file: Path, to: Format) -> Path:
    """A place to write to that is not the network itself, and that `compare` will know."""
    if not target.name or target.is_dir():
        raise KdpError(f"{target} is a folder; name a file (--output)")
    if target.exists() and target.samefile(file):
        raise KdpError(f"{target} is the network itself; choose another name (--output)")
    if to != "torchscript" and target.suffix.lower() != SUFFIXES[to]:
        raise KdpError(f"{target}: a file in {NAMES[to]} ends in {SUFFIXES[to]}")
    return target


def _probes(task: Task, size: Sequence[int]) -> list[Tensor]:
    """What to run: an input of this size, and one of other lengths along every open axis."""
    if min(size) < 1:
        raise KdpError(f"--size {size[0]} {size[1]}: both must be positive")
    first = task.example(size)
    if not task.dynamic_axes:
        return [first]
    height, width = (side + 8 * (axis in task.dynamic_axes) for axis, side in enumerate(size, 2))
    # The exporter takes a batch of one for a constant.
    return [torch.cat([first, first.flip(-1)]), task.example((height, width))]


Written = tuple[bytes, Callable[[Tensor], Tensor]]


def _onnx(
    model: nn.Module,
    probe: Tensor,
    dynamic_axes: Sequence[int],
    precision: str,
    about: dict[str, Any],
) -> Written:
    proto = onnx_proto(model, probe, dynamic_axes)
    proto = in_precision(proto, precision)
    entry = proto.metadata_props.add()
    about = {**about, "precision": precision, "weight_bytes": constant_bytes(proto.graph)}
    entry.key, entry.value = PROPERTY, json_line(about)
    content = proto.SerializeToString(deterministic=True)
    return content, OnnxNetwork(content, "the exported network")


def _torchscript(
    model: nn.Module,
    probe: Tensor,
    dynamic_axes: Sequence[int],
    precision: str,
    about: dict[str, Any],
) -> Written:
    buffer = io.BytesIO()
    traced = torch.jit.trace(model, (probe,), check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={PROPERTY: json_line(about)})
    content = _without_sources(buffer.getvalue())
    return content, torch.jit.load(io.BytesIO(content))


def _ultralytics(
    model: nn.Module,
    probe: Tensor,
    dynamic_axes: Sequence[int],
    precision: str,
    about: dict[str, Any],
) -> Written:
    """A file for Ultralytics' own programs, which build every network of their own plan."""
    name, args = about["arch"]["name"], about["arch"]["args"]
    if name != "yolo11":
        raise KdpError(f"Ultralytics has no {name!r}; --to onnx writes it")
    if any(args.get("widths", ())):
        raise KdpError("Ultralytics builds full networks alone, and this one is pruned; --to onnx")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "exported.pt"
        params = to_ultralytics(model.state_dict())
        size = args.get("image_size", probe.shape[-1])
        write_ultralytics(target, params, args["scale"], args["classes"], size, {})
        return target.read_bytes(), load_network(target)[0]


def _without_sources(content: bytes) -> bytes:
    """A TorchScript archive without the places of the Python files it came from."""
    shorter = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(shorter, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry, old.read(entry))
    return shorter.getvalue()


_WRITERS: dict[str, Callable[..., Written]] = {
    "onnx": _onnx,
    "torchscript": _torchscript,
    "ultralytics": _ultralytics,
}


def _about(file: Path, arch: Arch, model: nn.Module, task: Task) -> dict[str, Any]:
    total, nonzero = parameters(model)
    return {
        "arch": arch.plain(),
        "classes": list(getattr(task, "classes", ())),
        "input": task.reads,
        "output": task.gives,
        "parameters": total,
        "nonzero": nonzero,
        "source": {"name": file.name, "sha256": sha256(file)},
        "kdp": __version__,
    }


def _beside(file: Path, to: str, precision: str) -> Path:
    kind = "" if precision == "fp32" else f"_{precision}"
    return file.with_name(f"{file.stem}{kind}{SUFFIXES[to]}")


def _difference(found: Tensor, expected: Tensor, parts: Sequence[int]) -> float:
    """The largest, relative to the largest value; of the worst part."""
    both = (x.split(parts, 1) if parts else [x] for x in (found, expected))
    shares = [(a - b).abs().max() / b.abs().max() for a, b in zip(*both, strict=True)]
    return float(torch.stack(shares).max())


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
