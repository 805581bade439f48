"""How detectors are exported, among other formats into files of Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from kdp.config import Config
from kdp.data.mosaic import GREY
from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.models.ultralytics_file import DOCS, LICENSE, write_ultralytics
from kdp.models.ultralytics_names import to_ultralytics
from kdp.models.yolo11 import STRIDES
from kdp.tasks.detection.task import Detection
from kdp.tasks.export_spec import ExportFormat, ExportSpec, OutputSplit, Runner
from kdp.temporary import temporary_folder
from kdp.types import Arch


def export_spec(arch: Arch, config: Config) -> ExportSpec:
    """RGB in; boxes and probabilities out, which differ in scale and are compared separately."""
    task = Detection(arch, config)
    return ExportSpec(
        arch=arch,
        example=task.example,
        size=task.latency_size,
        input_spec=f"RGB in 0..1, letterboxed to {task.size}x{task.size} on grey {GREY}",
        output_spec="centre x, centre y, width, height in pixels, probabilities; for every cell",
        dynamic_axes=(0,),
        # Ultralytics takes a batch with a name for a promise that height and width are free too.
        names_output_axes=False,
        # On an image without objects all probabilities are tiny, and what is relative to them
        # decides nothing.
        output_splits=(
            OutputSplit("boxes", 4),
            OutputSplit("probabilities", len(task.classes), scale=1.0),
        ),
        classes=task.classes,
        properties=partial(_properties, arch),
        formats={"ultralytics": ULTRALYTICS},
    )


def _properties(arch: Arch, shape: Sequence[int]) -> Mapping[str, str]:
    """The metadata by which Ultralytics' `YOLO(file)` knows a network."""
    return {
        "description": f"YOLO11{arch.args['scale']} detector, exported by kdp",
        "license": LICENSE,
        "docs": DOCS,
        "task": "detect",
        "stride": str(STRIDES[-1]),
        "batch": "1",
        "imgsz": str(list(shape[2:])),
        "channels": str(shape[1]),
        "names": str(dict(enumerate(arch.args["classes"]))),
        "args": str({"batch": 1, "dynamic": False, "nms": False}),
        "end2end": "False",
    }


def _write_ultralytics(
    model: nn.Module, example: Tensor, spec: ExportSpec, description: dict[str, Any], precision: str
) -> tuple[bytes, Runner]:
    """A file for Ultralytics' own programs, which build every network from its scale alone.

    Raises:
        KdpError: the network is pruned, or Ultralytics is missing.
    """
    args = spec.arch.args
    if any(args.get("widths", ())):
        raise KdpError("Ultralytics builds full networks only, and this one is pruned; use onnx")
    with temporary_folder() as folder:
        target = folder / "exported.pt"
        params = to_ultralytics(model.state_dict())
        size = args.get("image_size", example.shape[-1])
        write_ultralytics(target, params, args["scale"], args["classes"], size, {})
        return target.read_bytes(), load_network(target)[0]


# Ultralytics decodes the outputs itself, so that this file holds them as they are trained.
ULTRALYTICS = ExportFormat(
    title="Ultralytics' format", suffix=".pt", write=_write_ultralytics, decoded=False
)
