"""How networks for acoustic scenes are exported."""

from __future__ import annotations

from kdp.config import Config
from kdp.tasks.export_spec import ExportSpec
from kdp.tasks.scenes.task import AcousticScenes
from kdp.types import Arch


def export_spec(arch: Arch, config: Config) -> ExportSpec:
    """Log-mel of one second in, logits out, for any batch."""
    task = AcousticScenes(arch, config)
    mels, frames = task.native_size
    rate = task.settings.sample_rate
    return ExportSpec(
        arch=arch,
        example=task.example,
        size=task.latency_size,
        input_spec=f"log-mel of 1 s at {rate} Hz, (batch, 1, {mels}, {frames})",
        output_spec="logits of the classes",
        classes=task.classes,
    )
