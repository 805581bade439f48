"""How networks for acoustic scenes are exported."""

from __future__ import annotations

from kdp.config import Config
from kdp.data.audio import RATE
from kdp.tasks.export_spec import ExportSpec
from kdp.tasks.scenes.task import SECOND, AcousticScenes
from kdp.types import Arch


def export_spec(arch: Arch, config: Config) -> ExportSpec:
    """Log-mel of one second in, logits out, for any batch."""
    task = AcousticScenes(arch, config)
    mels, frames = SECOND
    return ExportSpec(
        arch=arch,
        example=task.example,
        size=task.latency_size,
        input_spec=f"log-mel of 1 s at {RATE} Hz, (batch, 1, {mels}, {frames})",
        output_spec="logits of the classes",
        classes=task.classes,
    )
