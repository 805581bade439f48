"""Structural re-parameterisation: parallel convolutions in training, one in inference.

A convolution followed by BatchNorm in evaluation mode equals one convolution with a bias, and a
sum of parallel convolutions equals one whose kernel is the sum of their kernels (RepVGG, arXiv
2101.03697; ACNet, arXiv 1908.03930).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]
Kind = Literal["single", "branches", "fused"]


class ConvBN(nn.Module):
    """A convolution without bias, then BatchNorm; padded for an odd kernel."""

    def __init__(
        self, before: int, after: int, kernel: Pair, stride: Pair = (1, 1), groups: int = 1
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(self.conv(x_BCHW))

    def fuse(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the equivalent convolution, in float64."""
        return _through(self.norm, self.conv.weight.double())


class RepConv(nn.Module):
    """The sum of `ConvBN` branches with kernels 3x3, 1x1, 3x1 and 1x3.

    If input and output have the same shape, a BatchNorm alone is a fifth branch.
    """

    KERNELS = ((3, 3), (1, 1), (3, 1), (1, 3))

    def __init__(self, before: int, after: int, stride: Pair = (1, 1), groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.branches = nn.ModuleList(
            ConvBN(before, after, kernel, stride, groups) for kernel in self.KERNELS
        )
        same = before == after and stride == (1, 1)
        self.identity = nn.BatchNorm2d(after) if same else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = sum(branch(x_BCHW) for branch in self.branches)
        assert isinstance(y, Tensor)
        return y if self.identity is None else y + self.identity(x_BCHW)

    def fuse(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the equivalent 3x3 convolution, in float64."""
        parts = [branch.fuse() for branch in self.branches if isinstance(branch, ConvBN)]
        if self.identity is not None:
            parts.append(_through(self.identity, self._unit_kernel()))
        kernels = [_to_three(kernel) for kernel, _ in parts]
        return torch.stack(kernels).sum(0), torch.stack([bias for _, bias in parts]).sum(0)

    def _unit_kernel(self) -> Tensor:
        assert self.identity is not None
        channels = self.identity.num_features
        kernel = torch.zeros(channels, channels // self.groups, 1, 1, dtype=torch.float64)
        # In a grouped convolution, input channels are numbered within their group.
        index = torch.arange(channels)
        kernel[index, index % kernel.shape[1]] = 1
        return kernel.to(self.identity.weight.device)


def convolution(
    kind: Kind, before: int, after: int, kernel: Pair, stride: Pair = (1, 1), groups: int = 1
) -> nn.Module:
    """A convolution with its normalisation, in the form that `kind` names.

    Args:
        kind: "single" (`ConvBN`), "branches" (`RepConv` for 3x3 kernels, else `ConvBN`), or "fused"
            (`nn.Conv2d` with a bias).
        before, after: channels.
        kernel: (height, width), odd.
        stride, groups: as of `nn.Conv2d`.
    """
    if kind == "fused":
        padding = (kernel[0] // 2, kernel[1] // 2)
        return nn.Conv2d(before, after, kernel, stride, padding, groups=groups)
    if kind == "branches" and kernel == (3, 3):
        return RepConv(before, after, stride, groups)
    return ConvBN(before, after, kernel, stride, groups)


@torch.no_grad()
def fused_params(model: nn.Module) -> dict[str, Tensor]:
    """State dict of the network with every `ConvBN` and `RepConv` fused."""
    fused = {name: m.fuse() for name, m in model.named_modules() if isinstance(m, RepConv)}
    # The branches of a RepConv are ConvBNs too; they are part of its fused kernel already.
    inside = tuple(f"{name}." for name in fused)
    fused |= {
        name: m.fuse()
        for name, m in model.named_modules()
        if isinstance(m, ConvBN) and not name.startswith(inside)
    }
    return _replaced(model.state_dict(), fused)


def _replaced(
    params: Mapping[str, Tensor], fused: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    inside = tuple(f"{name}." for name in fused)
    kept: dict[str, Any] = {k: v for k, v in params.items() if not k.startswith(inside)}
    for name, (kernel, bias) in fused.items():
        kept[f"{name}.weight"], kept[f"{name}.bias"] = kernel.float(), bias.float()
    return kept


def _through(norm: nn.BatchNorm2d, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm in evaluation mode into a kernel: the new kernel and its bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.bias.double() - norm.running_mean.double() * factor
    return kernel * factor.view(-1, 1, 1, 1), bias


def _to_three(kernel: Tensor) -> Tensor:
    """Zero-pad a smaller kernel to 3x3."""
    height, width = kernel.shape[2:]
    high, wide = (3 - height) // 2, (3 - width) // 2
    return F.pad(kernel, (wide, wide, high, high))
