"""Networks in half precision, and the size of weights in bytes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kdp.models.onnx_file import OnnxNetwork


class HalfPrecision(nn.Module):
    """A network with parameters in half precision and inputs and outputs in single precision.

    It computes in half precision too, or, if the device lacks an operation for it, in single
    precision with the rounded parameters.

    Args:
        model: on the device to compute on; it is copied, not changed.
        example: an input on that device.

    Attributes:
        about: describes the precision in a table.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).half().eval()
        self.dtype = torch.float16
        try:
            with torch.no_grad():
                self.network(example.half())
        except RuntimeError:
            self.dtype = torch.float32
            self.network.float()
        computed = "fp16" if self.dtype == torch.float16 else "fp32"
        self.about = f"parameters rounded to fp16, computed in {computed}"

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.to(self.dtype)).to(x.dtype)


def weight_bytes(model: nn.Module) -> float:
    """Bytes of a network's parameters; of an ONNX file all constants, NaN where it does not say."""
    if isinstance(model, OnnxNetwork):
        return float(model.about.get("weight_bytes", "nan"))
    half = isinstance(model, HalfPrecision)
    return float(sum(p.numel() * (2 if half else p.element_size()) for p in model.parameters()))
