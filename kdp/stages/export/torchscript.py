"""Networks as TorchScript."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch
from torch import Tensor, nn

from kdp.models.onnx_file import PROPERTY
from kdp.serialize import json_line
from kdp.tasks.export_spec import ExportFormat, ExportSpec, Runner


def _write(
    model: nn.Module, example: Tensor, spec: ExportSpec, description: dict[str, Any], precision: str
) -> tuple[bytes, Runner]:
    buffer = io.BytesIO()
    traced = torch.jit.trace(model, (example,), check_trace=False)
    torch.jit.save(traced, buffer, _extra_files={PROPERTY: json_line(description)})
    content = _without_source_paths(buffer.getvalue())
    return content, torch.jit.load(io.BytesIO(content))


def _without_source_paths(content: bytes) -> bytes:
    """An archive without its debug entries, which hold the paths of Python files on the machine
    that wrote it."""
    shorter = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(shorter, "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(entry, old.read(entry))
    return shorter.getvalue()


TORCHSCRIPT = ExportFormat(
    title="TorchScript", suffix=".torchscript", write=_write, any_suffix=True
)
