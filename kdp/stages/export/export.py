"""`kdp export`: a network in a format for programs without PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdp import __version__
from kdp.artifacts import Artifact
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import file_lock, sha256
from kdp.finite import outputs_finite
from kdp.measure.complexity import parameters, run_checked
from kdp.models import with_decoding
from kdp.models.loading import load_network
from kdp.removed import REMOVED
from kdp.stages.export.check import check_outputs
from kdp.stages.export.onnx import AXES, onnx_format
from kdp.stages.export.torchscript import TORCHSCRIPT
from kdp.stages.replacing import OTHER_OUTPUT, check_targets
from kdp.tasks import family_of
from kdp.tasks.export_spec import ExportFormat, ExportSpec
from kdp.types import Arch
from kdp.written import write_output

Size = tuple[int, int]
MASKED_STAGES = ("prune", "finetune")
"""Stages whose files are masked, in files of versions that did not list what was removed."""


@dataclass(frozen=True)
class ExportRequest:
    """The options of `kdp export`.

    Attributes:
        format: `onnx`, `torchscript`, or a format of the network's family.
        precision: `fp16` has weights and products in half precision, `int8` has 8-bit weights and
            quantises activations while it runs; inputs and outputs stay float32.
        size: (height, width) of the input, for a network that is exported for one size only.
        output: file to write (default: beside the network).
        overwrite: replace a file that kdp did not write, too.
    """

    format: str
    precision: str = "fp32"
    size: Size | None = None
    output: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        path: the file.
        difference: of its outputs from PyTorch's, the largest; see `check_outputs`.
        input_shape: that it was checked with.
        dynamic_axes: names of the axes of any length.
    """

    path: Path
    difference: float
    input_shape: tuple[int, ...]
    dynamic_axes: tuple[str, ...]


def export(file: Path, request: ExportRequest, config: Config) -> Exported:
    """Write a network in another format, after running it there and comparing the outputs.

    Args:
        file: an artifact or a foreign checkpoint.
        request: the options.
        config: of the family.

    Raises:
        KdpError: the file is unreadable or has removed units, packages are missing, the family or
            its network does not support the format, or the outputs differ from PyTorch's.
    """
    model, arch, artifact = load_network(file)
    _check_not_masked(file, artifact)
    spec = family_of(arch).export_spec(arch, config)
    chosen = _format(request, spec, arch)
    if chosen.decoded:
        model, arch = with_decoding(model, arch)
    if request.size is not None:
        arch = _with_size(arch, request.size, spec.dynamic_axes)
    spec = family_of(arch).export_spec(arch, config)
    target = _checked_target(request, chosen, file)
    examples = _examples(spec, request.size or spec.size)
    with outputs_finite(model, str(file)):
        expected = [run_checked(model, example) for example in examples]
    with file_lock(target), _exporters_silenced():
        description = _description(file, model, spec)
        content, run = chosen.write(model, examples[0], spec, description, request.precision)
        # Outputs that are not decoded are raw maps, whose parts the splits do not describe.
        splits = spec.output_splits if chosen.decoded else ()
        differences = [
            check_outputs(run(example), reference, splits, request.precision)
            for example, reference in zip(examples, expected, strict=True)
        ]
        write_output(target, content)
    names = tuple(AXES[axis] for axis in spec.dynamic_axes)
    return Exported(target, max(differences), tuple(examples[0].shape), names)


def _check_not_masked(file: Path, artifact: Artifact) -> None:
    """Make sure that no unit of a network is removed but still there as zeros.

    Raises:
        KdpError: the file would be as large and as slow as that of the dense network.
    """
    removed = artifact.extra.get(REMOVED)
    if removed is not None:
        is_masked = bool(removed["entries"].any())
    else:
        is_masked = artifact.record is not None and artifact.record.stage in MASKED_STAGES
    if is_masked:
        raise KdpError(
            f"{file} still holds its removed units, as zeros, and would be exported at full size; "
            "run `kdp rebuild` and export the file that it writes"
        )


def _format(request: ExportRequest, spec: ExportSpec, arch: Arch) -> ExportFormat:
    """The requested format, if the network can be written in it."""
    formats = {"onnx": onnx_format(), "torchscript": TORCHSCRIPT, **spec.formats}
    if request.format not in formats:
        known = ", ".join(formats)
        raise KdpError(f"{arch.name} cannot be exported to {request.format!r}; formats: {known}")
    chosen = formats[request.format]
    if request.precision not in chosen.precisions:
        raise KdpError(
            f"{chosen.title} is written in {', '.join(chosen.precisions)}; "
            f"{request.precision} needs onnx"
        )
    return chosen


def _with_size(arch: Arch, size: Sequence[int], dynamic_axes: Sequence[int]) -> Arch:
    """The architecture for programs that run it at this one size."""
    if "image_size" not in arch.args or 2 in dynamic_axes:
        return arch
    height, width = size
    if height != width:
        raise KdpError(f"--size {height} {width}: {arch.name} reads squares")
    return arch.with_args(image_size=height)


def _checked_target(request: ExportRequest, chosen: ExportFormat, file: Path) -> Path:
    """The file to write: not the network itself, and with a suffix that `compare` knows."""
    target = request.output or _beside(file, chosen.suffix, request.precision)
    if not target.name or target.is_dir():
        raise KdpError(f"{target} is a folder; name a file (--output)")
    if target.exists() and target.samefile(file):
        raise KdpError(f"{target} is the network itself; choose another name (--output)")
    if not chosen.any_suffix and target.suffix.lower() != chosen.suffix:
        raise KdpError(f"{target}: a file in {chosen.title} ends in {chosen.suffix}")
    check_targets([target], request.overwrite, OTHER_OUTPUT)
    return target


def _beside(file: Path, suffix: str, precision: str) -> Path:
    infix = "" if precision == "fp32" else f"_{precision}"
    return file.with_name(f"{file.stem}{infix}{suffix}")


def _examples(spec: ExportSpec, size: Size) -> list[Tensor]:
    """Inputs to compare outputs on: one of this size, and one of other lengths on dynamic axes."""
    if min(size) < 1:
        raise KdpError(f"--size {size[0]} {size[1]}: both must be positive")
    first = spec.example(size)
    if not spec.dynamic_axes:
        return [first]
    height, width = (side + 8 * (axis in spec.dynamic_axes) for axis, side in enumerate(size, 2))
    # A batch of two: the exporter takes an axis of length one for a constant.
    return [torch.cat([first, first.flip(-1)]), spec.example((height, width))]


def _description(file: Path, model: nn.Module, spec: ExportSpec) -> dict[str, Any]:
    """The metadata of the exported file; `kdp compare` and other programs read it."""
    total, nonzero = parameters(model)
    return {
        "arch": spec.arch.plain(),
        "classes": list(spec.classes),
        "input": spec.input_spec,
        "output": spec.output_spec,
        "parameters": total,
        "nonzero": nonzero,
        "source": {"name": file.name, "sha256": sha256(file)},
        "kdp": __version__,
    }


@contextmanager
def _exporters_silenced() -> Iterator[None]:
    """Without the exporters' remarks about themselves."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
