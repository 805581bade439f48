"""Layers that both kinds of CATANet blocks share; see `kdp.models.catanet` for shape suffixes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdp.models.attention import attend


class PreNormAttention(nn.Module):
    """LayerNorm and multi-head self-attention over the tokens of a patch."""

    def __init__(self, dim: int, heads: int, head_dims: tuple[int, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = Attention(dim, heads, head_dims)

    def forward(self, x_XLC: Tensor) -> Tensor:
        return self.fn(self.norm(x_XLC))


class Attention(nn.Module):
    """Multi-head self-attention without biases."""

    def __init__(self, dim: int, heads: int, head_dims: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * head_dims[0], bias=False)
        self.to_k = nn.Linear(dim, heads * head_dims[0], bias=False)
        self.to_v = nn.Linear(dim, heads * head_dims[1], bias=False)
        self.proj = nn.Linear(heads * head_dims[1], dim, bias=False)

    def forward(self, x_XLC: Tensor) -> Tensor:
        q, k, v = (
            linear(x_XLC).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


class PreNormFFN(nn.Module):
    """LayerNorm over channels and a ConvFFN, on a feature map."""

    def __init__(self, dim: int, neurons: int) -> None:
        super().__init__()
        if neurons:
            self.norm = nn.LayerNorm(dim)
        self.fn = ConvFFN(dim, neurons)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        tokens_BNC = to_tokens(x_BCHW)
        if self.fn.neurons:
            tokens_BNC = self.norm(tokens_BNC)
        return to_map(self.fn(tokens_BNC, x_BCHW.shape[-2:]), x_BCHW.shape[-2:])


class ConvFFN(nn.Module):
    """Two linear layers with GELU and a depthwise 5x5 branch between; a bias if no neurons."""

    def __init__(self, dim: int, neurons: int) -> None:
        super().__init__()
        self.neurons = neurons
        if neurons:
            self.fc1 = nn.Linear(dim, neurons)
            self.act = nn.GELU()
            self.dwconv = DepthwiseConv(neurons)
        self.fc2 = nn.Linear(neurons, dim) if neurons else Bias(dim)

    def forward(self, x_BNC: Tensor, size: Sequence[int]) -> Tensor:
        if not self.neurons:
            return self.fc2(x_BNC)
        hidden = self.act(self.fc1(x_BNC))
        return self.fc2(hidden + self.dwconv(hidden, size))


class Bias(nn.Module):
    """A linear layer without inputs: its bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.bias.expand_as(x_BNC)


class DepthwiseConv(nn.Module):
    """Depthwise 5x5 convolution and GELU on tokens, arranged as an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.depthwise_conv = nn.Sequential(conv, nn.GELU())

    def forward(self, x_BNC: Tensor, size: Sequence[int]) -> Tensor:
        return to_tokens(self.depthwise_conv(to_map(x_BNC, size)))


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H*W, C)."""
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(x_BNC: Tensor, size: Sequence[int]) -> Tensor:
    """(B, H*W, C) -> (B, C, H, W) in channels last."""
    # unflatten and permute keep channels-last strides even for a single image, where reshape might
    # report contiguous ones and send convolutions to a slower kernel.
    return x_BNC.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def mirror_index(n: int, length: int, device: torch.device, repeat_edge: bool = True) -> Tensor:
    """Positions 0..n-1, then backwards, then forwards ..., `length` in all."""
    edge = 0 if repeat_edge else 1
    index = torch.arange(length, device=device) % (2 * (n - edge))
    return torch.where(index < n, index, 2 * n - 1 - edge - index)
