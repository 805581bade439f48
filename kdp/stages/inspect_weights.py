"""`kdp inspect-weights`: what is zero in a file, what its masks keep, and where it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kdp.artifacts import Artifact
from kdp.errors import KdpError
from kdp.files import input_path, sha256
from kdp.measure.complexity import build_on_meta
from kdp.measure.sparsity import Sparsity, sparsity_of, total
from kdp.models import MODELS
from kdp.models.loading import inferred, read_weights
from kdp.serialize import json_text
from kdp.types import Arch, Provenance


@dataclass(frozen=True)
class GroupMask:
    """What a mask keeps of a group, and the range of its importance scores, if they are there."""

    name: str
    units: int
    kept: int
    scores: tuple[float, float] | None


@dataclass(frozen=True)
class Origin:
    """A file, how it was made, and the files it was made from.

    `stage` and `command` are None where kdp did not write the file; `metrics` are flat.
    """

    path: str
    sha256: str
    stage: str | None
    command: str | None
    metrics: dict[str, float]
    parents: list[Origin]


@dataclass(frozen=True)
class Inspection:
    """One file.

    Attributes:
        path: the file.
        file_bytes: its size on disk.
        arch: its network, None where it is of none that kdp knows.
        parameters: zeros of every parameter.
        buffer_elements: numbers stored that are no parameters (running averages, say).
        masks: what its masks keep, if it has any.
        origin: where it came from.
    """

    path: Path
    file_bytes: int
    arch: Arch | None
    parameters: list[Sparsity]
    buffer_elements: int
    masks: list[GroupMask]
    origin: Origin


def inspect(path: Path) -> Inspection:
    """Read one artifact or foreign checkpoint.

    Raises:
        KdpError: missing, truncated, not a checkpoint, or holding code.
    """
    if path.suffix.lower() == ".onnx":
        raise KdpError(f"{path} is exported; `kdp compare` shows its size and how good it is")
    artifact = read_weights(path)
    arch = _architecture(artifact)
    names = _parameter_names(artifact, arch)
    own = {name: tensor for name, tensor in artifact.params.items() if name in names}
    numbers = sum(tensor.numel() for tensor in artifact.params.values())
    return Inspection(
        path=path,
        file_bytes=input_path(path).stat().st_size,
        arch=arch,
        parameters=sparsity_of(own),
        buffer_elements=numbers - sum(tensor.numel() for tensor in own.values()),
        masks=_masks(artifact.extra.get("masks", {}), artifact.extra.get("scores", {})),
        origin=_origin(str(path), sha256(path), artifact.record),
    )


def to_json(inspections: Iterable[Inspection]) -> str:
    """Everything found, as a list with one entry per file."""
    return json_text([asdict(inspection) for inspection in inspections])


def show(
    inspections: Sequence[Inspection], layers: bool | None = None, console: Console | None = None
) -> None:
    """Print the summary, and of each file its layers, masks and origin.

    Args:
        inspections: the files.
        layers: show every layer; None does so for a single file.
        console: where to.
    """
    console = console or Console()
    for inspection in inspections:
        if inspection.parameters and (layers or (layers is None and len(inspections) == 1)):
            console.print(_layer_table(inspection))
        if inspection.masks:
            console.print(_mask_table(inspection))
    console.print(_summary(inspections))
    shown: set[str] = set()
    for inspection in inspections:
        for line in _tree(inspection.origin, shown):  # whole: a broken path cannot be copied
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def _architecture(artifact: Artifact) -> Arch | None:
    if artifact.arch:
        return artifact.arch
    return inferred(artifact.params)


def _parameter_names(artifact: Artifact, arch: Arch | None) -> set[str]:
    if arch is None or arch.name not in MODELS:
        return {name for name, tensor in artifact.params.items() if tensor.is_floating_point()}
    return {name for name, _ in build_on_meta(arch).named_parameters()}


def _masks(masks: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> list[GroupMask]:
    return [
        GroupMask(name, mask.numel(), int(mask.count_nonzero()), _range(scores.get(name)))
        for name, mask in masks.items()
    ]


def _range(scores: Tensor | None) -> tuple[float, float] | None:
    if scores is None or not scores.numel():
        return None
    return float(scores.min()), float(scores.max())


def _origin(path: str, digest: str, record: Provenance | None) -> Origin:
    if record is None:
        return Origin(path, digest, None, None, {}, [])
    parents = [_origin(parent.path, parent.sha256, parent.record) for parent in record.parents]
    return Origin(path, digest, record.stage, record.command, dict(_flat(record.metrics)), parents)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    """Numbers with their keys joined; whatever else a stage noted is left out."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{key}", float(value)


def _layer_table(inspection: Inspection) -> Table:
    table = Table(box=SIMPLE_HEAD, title=str(inspection.path), title_justify="left")
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    table.add_column("layer", overflow="fold")
    for name in ("shape", "elements", "zeros", "%", "rows 0", "cols 0"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer, parts in groupby(inspection.parameters, lambda part: part.layer):
        members = list(parts)
        shapes = " + ".join("x".join(map(str, part.shape)) for part in members)
        rows = sum(part.zero_rows for part in members)
        columns = sum(part.zero_columns for part in members)
        table.add_row(layer, shapes, *_zeros(*total(members)), str(rows), str(columns))
    return table


def _mask_table(inspection: Inspection) -> Table:
    table = Table(title=f"masks of {inspection.path}", title_justify="left")
    table.add_column("group", overflow="fold")
    for name in ("kept", "units", "%", "scores"):
        table.add_column(name, justify="right")
    for mask in inspection.masks:
        share = f"{100 * mask.kept / max(mask.units, 1):.1f}"
        scores = "{:.3g} .. {:.3g}".format(*mask.scores) if mask.scores else ""
        table.add_row(mask.name, str(mask.kept), str(mask.units), share, scores)
    return table


def _summary(inspections: Sequence[Inspection]) -> Table:
    table = Table()
    table.add_column("file", overflow="fold")
    for name in ("parameters", "zeros", "%", "buffers", "MB", "units kept"):
        table.add_column(name, justify="right")
    for found in inspections:
        kept = sum(mask.kept for mask in found.masks)
        units = sum(mask.units for mask in found.masks)
        size, masks = f"{found.file_bytes / 1e6:.3f}", f"{kept}/{units}" if units else ""
        counts = _zeros(*total(found.parameters))
        table.add_row(str(found.path), *counts, f"{found.buffer_elements:,}", size, masks)
    return table


def _zeros(elements: int, zeros: int) -> tuple[str, str, str]:
    return f"{elements:,}", f"{zeros:,}", f"{100 * zeros / max(elements, 1):.1f}"


def _tree(origin: Origin, shown: set[str], indent: str = "") -> list[str]:
    """A file and below it what it was made from; a file seen before is only named."""
    name = f"{origin.path} (sha256 {origin.sha256[:12]})"
    if origin.sha256 in shown:
        return [f"{indent}{name}, as above"]
    shown.add(origin.sha256)
    lines = [name, f"{origin.stage}: {origin.command}" if origin.stage else "not written by kdp"]
    if origin.metrics:
        lines.append(", ".join(f"{name} {value:.4g}" for name, value in origin.metrics.items()))
    below = [line for parent in origin.parents for line in _tree(parent, shown, f"{indent}    ")]
    return [*(indent + line for line in lines), *below]
