"""`kdp inspect-weights`: sparsity, masks and provenance of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import Tensor

from kdp.artifacts import Artifact
from kdp.errors import KdpError
from kdp.files import input_path, sha256
from kdp.measure.sparsity import Sparsity, sparsity_of, total
from kdp.models import MODELS, build_on_meta
from kdp.models.loading import inferred, read_weights
from kdp.pruning.identity import MasksIdentity
from kdp.serialize import flattened, json_text
from kdp.stages.tables import plain_table, print_line, with_unit
from kdp.types import Arch, Provenance


@dataclass(frozen=True)
class GroupMask:
    """How many units of a group a mask keeps, and the range of their importance scores.

    `scores` is None where the file has none.
    """

    name: str
    units: int
    kept: int
    scores: tuple[float, float] | None


@dataclass(frozen=True)
class Origin:
    """A file, the command that wrote it, and its parents.

    `stage` and `command` are None where kdp did not write the file. `metrics` are by joined keys.
    """

    path: str
    sha256: str
    stage: str | None
    command: str | None
    metrics: dict[str, float]
    parents: list[Origin]


@dataclass(frozen=True)
class Inspection:
    """The content of one file.

    Attributes:
        path: the file.
        file_bytes: its size on disk.
        arch: its network, None if kdp does not know it.
        parameters: sparsity of every parameter.
        buffer_elements: numbers in the state dict that are not parameters (running averages).
        masks: kept units by group, empty in a file without masks.
        identity: of the masks in the file, or of those that its network was made with.
        origin: its provenance.
    """

    path: Path
    file_bytes: int
    arch: Arch | None
    parameters: list[Sparsity]
    buffer_elements: int
    masks: list[GroupMask]
    identity: MasksIdentity
    origin: Origin


def inspect(path: Path) -> Inspection:
    """Read one artifact or foreign checkpoint.

    Raises:
        KdpError: missing, truncated, not a checkpoint, or holding code.
    """
    if path.suffix.lower() == ".onnx":
        raise KdpError(f"{path} is an ONNX file; `kdp compare` shows its size and quality")
    artifact = read_weights(path)
    arch = _architecture(artifact)
    names = _parameter_names(artifact, arch)
    params = {name: tensor for name, tensor in artifact.params.items() if name in names}
    elements = sum(tensor.numel() for tensor in artifact.params.values())
    return Inspection(
        path=path,
        file_bytes=input_path(path).stat().st_size,
        arch=arch,
        parameters=sparsity_of(params),
        buffer_elements=elements - sum(tensor.numel() for tensor in params.values()),
        masks=_masks(artifact.extra.get("masks", {}), artifact.extra.get("scores", {})),
        identity=MasksIdentity.of(artifact),
        origin=_origin(str(path), sha256(path), artifact.record),
    )


def to_json(inspections: Iterable[Inspection]) -> str:
    """A list with one entry per file."""
    entries = []
    for inspection in inspections:
        arch = inspection.arch.plain() if inspection.arch else None
        entries.append({**asdict(inspection), "arch": arch})
    return json_text(entries)


def show(
    inspections: Sequence[Inspection], layers: bool | None = None, console: Console | None = None
) -> None:
    """Print layers and masks of each file, the summary of all, and their provenance.

    Args:
        inspections: the files.
        layers: print every layer; None prints them for a single file.
        console: standard output by default.
    """
    console = console or Console()
    for inspection in inspections:
        if inspection.parameters and (layers or (layers is None and len(inspections) == 1)):
            console.print(_layer_table(inspection))
        if inspection.masks:
            console.print(_mask_table(inspection))
    console.print(_summary(inspections))
    for line in _identities(inspections):
        print_line(console, line)
    printed: set[str] = set()
    for inspection in inspections:
        for line in _tree(inspection.origin, printed):
            print_line(console, line)


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
    flat = flattened(record.metrics, " ").items()
    metrics = {key: float(value) for key, value in flat if isinstance(value, (int, float))}
    return Origin(path, digest, record.stage, record.command, metrics, parents)


def _layer_table(inspection: Inspection) -> Table:
    table = plain_table(str(inspection.path))
    table.add_column("layer", overflow="fold")
    for name in ("shape", "elements", "zeros", "%", "zero rows", "zero cols"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer, parts in groupby(inspection.parameters, lambda part: part.layer):
        members = list(parts)
        shapes = " + ".join("x".join(map(str, part.shape)) for part in members)
        rows = sum(part.zero_rows for part in members)
        columns = sum(part.zero_columns for part in members)
        table.add_row(layer, shapes, *_zeros(*total(members)), str(rows), str(columns))
    return table


def _mask_table(inspection: Inspection) -> Table:
    table = plain_table(f"masks of {inspection.path}")
    table.add_column("group", overflow="fold")
    for name in ("kept", "units", "%", "scores"):
        table.add_column(name, justify="right")
    for mask in inspection.masks:
        share = f"{100 * mask.kept / max(mask.units, 1):.1f}"
        scores = "{:.3g} .. {:.3g}".format(*mask.scores) if mask.scores else ""
        table.add_row(mask.name, str(mask.kept), str(mask.units), share, scores)
    return table


def _summary(inspections: Sequence[Inspection]) -> Table:
    table = plain_table()
    table.add_column("file", overflow="fold")
    masked = any(inspection.masks for inspection in inspections)
    columns = ("parameters", "zeros", "%", "buffers", "size", *(["units kept"] if masked else []))
    for name in columns:
        table.add_column(name, justify="right")
    for inspection in inspections:
        kept = sum(mask.kept for mask in inspection.masks)
        units = sum(mask.units for mask in inspection.masks)
        table.add_row(
            str(inspection.path),
            *_zeros(*total(inspection.parameters)),
            f"{inspection.buffer_elements:,}",
            with_unit(inspection.file_bytes, "B"),
            *([f"{kept}/{units}" if units else ""] if masked else []),
        )
    return table


def _identities(inspections: Sequence[Inspection]) -> Iterable[str]:
    """Which masks each file was made with, and how many there are if not the same ones."""
    known = [inspection for inspection in inspections if inspection.identity.masks]
    for inspection in known:
        masks, network = (
            (digest or "unknown")[:12]
            for digest in (inspection.identity.masks, inspection.identity.network)
        )
        yield f"{inspection.path}: masks {masks} of network {network}"
    if any(inspection.identity.contradicts(known[0].identity) for inspection in known):
        yield "these files are of different prunings"


def _zeros(elements: int, zeros: int) -> tuple[str, str, str]:
    return f"{elements:,}", f"{zeros:,}", f"{100 * zeros / max(elements, 1):.1f}"


def _tree(origin: Origin, printed: set[str], indent: str = "") -> list[str]:
    """A file and, indented below it, its parents; a file printed before is only named."""
    name = f"{origin.path} (sha256 {origin.sha256[:12]})"
    if origin.sha256 in printed:
        return [f"{indent}{name}, as above"]
    printed.add(origin.sha256)
    lines = [name, f"{origin.stage}: {origin.command}" if origin.stage else "not written by kdp"]
    metrics = [f"{key} {value:.4g}" for key, value in origin.metrics.items() if _is_summary(key)]
    if metrics:
        lines.append(", ".join(metrics))
    below = [line for parent in origin.parents for line in _tree(parent, printed, f"{indent}    ")]
    return [*(indent + line for line in lines), *below]


def _is_summary(metric: str) -> bool:
    """False for the many numbers of single groups, classes and devices; JSON has them all."""
    return not metric.startswith("kept_units ") and len(metric.split()) <= 2
