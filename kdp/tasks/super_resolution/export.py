"""How super-resolution networks are exported."""

from __future__ import annotations

from kdp.config import Config
from kdp.tasks.export_spec import ExportSpec
from kdp.tasks.super_resolution.task import SuperResolution
from kdp.types import Arch


def export_spec(arch: Arch, config: Config) -> ExportSpec:
    """RGB in, RGB out, for one size of the input.

    No axis is dynamic: patches, token groups and the mirrored margin follow from the size, and the
    exporter turns them into constants.
    """
    task = SuperResolution(arch, config)
    return ExportSpec(
        arch=arch,
        example=task.example,
        size=task.latency_size,
        input_spec="RGB in 0..1, (batch, 3, height, width)",
        output_spec="RGB in 0..1, (batch, 3, height, width)",
        dynamic_axes=(),
    )
