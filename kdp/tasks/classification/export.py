"""How classifiers are exported."""

from __future__ import annotations

from kdp.config import Config
from kdp.tasks.classification.task import Classification
from kdp.tasks.export_spec import ExportSpec
from kdp.types import Arch


def export_spec(arch: Arch, config: Config) -> ExportSpec:
    """RGB in, logits out; the network pools over any size and batch."""
    task = Classification(arch, config)
    return ExportSpec(
        arch=arch,
        example=task.example,
        size=task.latency_size,
        input_spec=f"RGB in 0..1, resized to {task.size}x{task.size}",
        output_spec="logits of the classes",
        dynamic_axes=(0, 2, 3),
        classes=task.classes,
    )
