"""ONNX files of `kdp export`, run by onnxruntime behind the interface of a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdp.artifacts import Artifact
from kdp.checksums import check_checksum_inside
from kdp.contents import DescriptionContent, check_types
from kdp.errors import KdpError, first_line
from kdp.files import read_regular
from kdp.models.onnx_growth import check_growth
from kdp.types import Arch, Parent, Provenance

MAX_BYTES = 2**31
"""Of a file, which protobuf limits to this."""
PROPERTY = "kdp"
"""Metadata key under which a file describes its network, as JSON."""
CHECKSUM = "kdp_checksum"
"""The same of the CRC-32 of the whole file."""
FATAL = 4
"""The only severity of onnxruntime whose lines are not repeated by an exception."""
NEEDED = "ONNX needs more packages: pip install onnx onnxruntime onnxscript"


class OnnxNetwork(nn.Module):
    """An exported network for inference on the CPU.

    Args:
        content: content of the file.
        name: name of the file, for messages.

    Attributes:
        about: the description that `kdp export` wrote.
        fixed_size: (height, width) of the largest input, None if any size is accepted. Networks
            that output images accept smaller ones: they are padded by reflection and cropped.

    Raises:
        KdpError: onnxruntime is missing or cannot run the file, or kdp did not write it.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__()
        self.name = name
        self.session = _session(content, name)
        self.about = _about(self.session.get_modelmeta().custom_metadata_map, name)
        entries = self.session.get_inputs()
        if len(entries) != 1 or len(entries[0].shape) != 4 or not self.session.get_outputs():
            raise KdpError(f"{name} is damaged: it does not read one batch of images or sounds")
        height, width = entries[0].shape[2:]
        self.input = entries[0].name
        self.fixed_size = (height, width) if isinstance(height, int) else None
        self.outputs_images = len(self.session.get_outputs()[0].shape) == 4

    @property
    def counts(self) -> tuple[int, int]:
        """Number of parameters, and of nonzero ones, of the exported network."""
        return self.about["parameters"], self.about["nonzero"]

    @property
    def precision(self) -> str:
        """Precision of the weights: fp32, fp16 or int8."""
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
            KdpError: the input does not fit the fixed size, or onnxruntime fails.
        """
        x = x_BCHW.cpu().numpy()
        if self.fixed_size in (None, x.shape[2:]):
            return self._run(x).to(x_BCHW.device)
        assert self.fixed_size is not None
        missing = [fixed - side for fixed, side in zip(self.fixed_size, x.shape[2:], strict=True)]
        if min(missing) < 0 or not self.outputs_images:
            raise KdpError(
                f"{self.name} was exported for {_size(self.fixed_size)}, the input is "
                f"{_size(x.shape[2:])} (export --size, measure.latency_size)"
            )
        y = self._run(np.pad(x, [(0, 0), (0, 0), *((0, m) for m in missing)], mode="reflect"))
        height, width = (
            side * large // fixed
            for side, large, fixed in zip(x.shape[2:], y.shape[2:], self.fixed_size, strict=True)
        )
        return y[..., :height, :width].to(x_BCHW.device)

    def _run(self, x: np.ndarray) -> Tensor:
        try:
            return torch.from_numpy(self.session.run(None, {self.input: x})[0])
        except Exception as error:  # onnxruntime's exceptions have no narrower base class
            reason = first_line(error)
            raise KdpError(f"{self.name} cannot be run by onnxruntime: {reason}") from error


def load_onnx(path: Path) -> tuple[OnnxNetwork, Arch, Artifact]:
    """Load the network of a file with its architecture and provenance; see `OnnxNetwork`.

    Raises:
        KdpError: the file is missing or unreadable; see `OnnxNetwork`.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise KdpError(f"{path} cannot be read: {error.strerror}") from error
    check_checksum_inside(path, content)
    model = OnnxNetwork(content, str(path))
    arch = Arch.from_plain(model.about["arch"])
    return model.eval(), arch, Artifact({}, arch, model.record)


def _session(content: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise KdpError(f"{name}: {NEEDED}") from error
    check_growth(content, name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = FATAL  # it colours lines on stderr of errors that it raises, too
    onnxruntime.set_default_logger_severity(FATAL)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no narrower base class
        raise KdpError(f"{name} cannot be run by onnxruntime: {first_line(error)}") from error


def _about(properties: dict[str, str], name: str) -> dict[str, Any]:
    if PROPERTY not in properties:
        raise KdpError(
            f"{name} was not written by `kdp export`: it has no description of its network"
        )
    try:
        about: dict[str, Any] = json.loads(properties[PROPERTY])
        known = {"arch", "parameters", "nonzero"} <= about.keys()
    except (ValueError, AttributeError, RecursionError):
        known = False
    if not known:
        raise KdpError(f"{name} has a description that this version of kdp cannot read")
    check_types(Path(name), DescriptionContent, about, "its description")
    return about


def _size(size: Any) -> str:
    return "x".join(str(side) for side in size)
