"""ONNX files that `kdp export` wrote, run by onnxruntime as if they were networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.errors import KdpError, first_line
from kdp.types import Arch, Parent, Provenance

PROPERTY = "kdp"
"""Name of the metadata that says what network a file holds, as JSON."""
NEEDED = "ONNX needs more packages: pip install onnx onnxruntime onnxscript"


class OnnxNetwork(nn.Module):
    """A network that can be run and nothing else, on the CPU.

    Args:
        content: of the file.
        name: of the file, for messages.

    Attributes:
        about: what `kdp export` said of it.
        fixed_size: (height, width) of the largest input it takes, None where it takes any. Where
            the outputs are images, smaller ones are mirrored up to it and cut back.

    Raises:
        KdpError: onnxruntime is not there, or cannot run this; or it is not kdp's.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__()
        self.name = name
        self.session = _session(content, name)
        self.about = _about(self.session.get_modelmeta().custom_metadata_map, name)
        entry = self.session.get_inputs()[0]
        height, width = entry.shape[2:]
        self.input = entry.name
        self.fixed_size = (height, width) if isinstance(height, int) else None
        self.gives_images = len(self.session.get_outputs()[0].shape) == 4

    @property
    def counts(self) -> tuple[int, int]:
        """Parameters, and those that are not zero, of the network that was exported."""
        return self.about["parameters"], self.about["nonzero"]

    @property
    def precision(self) -> str:
        """Of the weights: fp32, fp16 or int8."""
        return str(self.about.get("precision", "fp32"))

    @property
    def record(self) -> Provenance:
        """Provenance: the export, and the artifact that was exported."""
        source = self.about.get("source")
        parents = (Parent(source["name"], source["sha256"]),) if source else ()
        versions = {"kdp": str(self.about["kdp"])} if "kdp" in self.about else {}
        return Provenance("export", versions=versions, parents=parents)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """
        Raises:
            KdpError: the input does not fit the only size that there is, or onnxruntime cannot
                compute this network.
        """
        x = x_BCHW.cpu().numpy()
        if self.fixed_size in (None, x.shape[2:]):
            return self._run(x).to(x_BCHW.device)
        assert self.fixed_size is not None
        missing = [there - side for there, side in zip(self.fixed_size, x.shape[2:], strict=True)]
        if min(missing) < 0 or not self.gives_images:
            raise KdpError(
                f"{self.name} was exported for {_size(self.fixed_size)}, the input is "
                f"{_size(x.shape[2:])} (export --size, measure.latency_size)"
            )
        y = self._run(np.pad(x, [(0, 0), (0, 0), *((0, m) for m in missing)], mode="reflect"))
        height, width = (
            side * large // there
            for side, large, there in zip(x.shape[2:], y.shape[2:], self.fixed_size, strict=True)
        )
        return y[..., :height, :width].to(x_BCHW.device)

    def _run(self, x: np.ndarray) -> Tensor:
        try:
            return torch.from_numpy(self.session.run(None, {self.input: x})[0])
        except Exception as error:  # onnxruntime's own exceptions have no base but this
            reason = first_line(error)
            raise KdpError(f"{self.name} cannot be run by onnxruntime: {reason}") from error


def load_onnx(path: Path) -> tuple[OnnxNetwork, Arch, Artifact]:
    """The network of a file, its architecture, and where it came from; see `OnnxNetwork`.

    Raises:
        KdpError: missing or unreadable; see `OnnxNetwork`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KdpError(f"{path} cannot be read: {error.strerror}") from error
    model = OnnxNetwork(content, str(path))
    arch = Arch.from_plain(model.about["arch"])
    return model.eval(), arch, Artifact({}, arch, model.record)


def _session(content: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise KdpError(f"{name}: {NEEDED}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no base but this
        raise KdpError(f"{name} cannot be run by onnxruntime: {first_line(error)}") from error


def _about(properties: dict[str, str], name: str) -> dict[str, Any]:
    if PROPERTY not in properties:
        raise KdpError(f"{name} was not written by `kdp export`: it does not say what it holds")
    try:
        about: dict[str, Any] = json.loads(properties[PROPERTY])
        known = {"arch", "parameters", "nonzero"} <= about.keys()
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise KdpError(f"{name} does not say what it holds in words this version of kdp knows")
    return about


def _size(size: Any) -> str:
    return "x".join(str(side) for side in size)
