"""CATANet, content-aware token aggregation for image super-resolution (arXiv 2503.06896).

Every width is an argument, block by block, so a teacher and a network rebuilt after pruning are
one class. Parameter names are those of the official checkpoints.

Shape suffixes: B images, C channels, H height, W width, N tokens (H*W), M token centres,
G groups of ordered tokens, S tokens of a group, T tokens with their padding, F features,
A heads, D width of a query/key head, E width of a value head, P patches, L tokens of a patch,
X batch and groups or patches together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.models.arguments import Count, Share, Size
from kdp.models.catanet_layers import mirror_index
from kdp.models.catanet_lrsa import LRSA
from kdp.models.catanet_tab import TAB

PATCH_SIZES = (16, 20, 24, 28, 16, 20, 24, 28)
NUM_TOKENS = (16, 32, 64, 128, 16, 32, 64, 128)
GROUP_SIZES = (256, 128, 64, 32, 256, 128, 64, 32)
MAX_SIZE = 1024
"""Of a patch, of a group, and of the tokens: inputs are padded to them."""
MIN_PATCH = 3
"""Patches overlap by 2 pixels."""


class CATANet(nn.Module):
    """Super-resolution by 2, 3 or 4; the defaults are CATANet-L.

    Args:
        upscale: 2, 3 or 4.
        dim: channels of the trunk.
        tab_heads, tab_neurons: heads and hidden neurons of each token-aggregation block (TAB);
            one number for all blocks, or one per block. Zero removes the part.
        lrsa_heads, lrsa_neurons: the same for each local-region block (LRSA).
        qk_head_dim, v_head_dim: widths of one head.
        patch_sizes, num_tokens, group_sizes: one per block; their length is the number of blocks.
        n_iters: refinements of the token centres in a training step.
        ema_decay: of the stored token centres.

    Shapes: (B, 3, h, w) in 0..1 -> (B, 3, upscale*h, upscale*w), not clipped. Any h, w >= 2.
    """

    def __init__(
        self,
        upscale: Size = 2,
        dim: Size = 40,
        tab_heads: Count | Sequence[Count] = 4,
        tab_neurons: Count | Sequence[Count] = 96,
        lrsa_heads: Count | Sequence[Count] = 4,
        lrsa_neurons: Count | Sequence[Count] = 96,
        qk_head_dim: Size = 9,
        v_head_dim: Size = 10,
        patch_sizes: Sequence[Size] = PATCH_SIZES,
        num_tokens: Sequence[Size] = NUM_TOKENS,
        group_sizes: Sequence[Size] = GROUP_SIZES,
        n_iters: Count = 5,
        ema_decay: Share = 0.999,
    ) -> None:
        super().__init__()
        depth = _depth(upscale, patch_sizes, num_tokens, group_sizes)
        self.widths = {
            "tab_heads": _per_block("tab_heads", tab_heads, depth),
            "tab_neurons": _per_block("tab_neurons", tab_neurons, depth),
            "lrsa_heads": _per_block("lrsa_heads", lrsa_heads, depth),
            "lrsa_neurons": _per_block("lrsa_neurons", lrsa_neurons, depth),
        }
        self.upscale = upscale
        self.min_side = max(patch_sizes)
        self.head_dims = head_dims = (qk_head_dim, v_head_dim)
        self.first_conv = nn.Conv2d(3, dim, 3, 1, 1)
        self.blocks = nn.ModuleList()
        for i, (t_heads, t_neurons, l_heads, l_neurons) in enumerate(
            zip(*self.widths.values(), strict=True)
        ):
            sizes = (num_tokens[i], group_sizes[i], n_iters, ema_decay)
            tab = TAB(dim, t_heads, t_neurons, head_dims, *sizes)
            lrsa = LRSA(dim, l_heads, l_neurons, head_dims, patch_sizes[i])
            self.blocks.append(nn.Sequential(tab, lrsa))
        self.mid_convs = nn.ModuleList(nn.Conv2d(dim, dim, 3, 1, 1) for _ in range(depth))
        if upscale == 4:
            self.upconv1 = nn.Conv2d(dim, dim * 4, 3, 1, 1)
            self.upconv2 = nn.Conv2d(dim, dim * 4, 3, 1, 1)
        else:
            self.upconv = nn.Conv2d(dim, dim * upscale**2, 3, 1, 1)
        self.last_conv = nn.Conv2d(dim, 3, 3, 1, 1)
        self.apply(_init_weights)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h, w = x_BCHW.shape[-2:]
        # With channels last, tokens and feature maps are views of each other, without copies.
        x_BCHW = _reflect_up_to(x_BCHW, self.min_side).to(memory_format=torch.channels_last)
        base = F.interpolate(
            x_BCHW, scale_factor=self.upscale, mode="bilinear", align_corners=False
        )
        first = self.first_conv(x_BCHW)
        features = first
        for block, mid_conv in zip(self.blocks, self.mid_convs, strict=True):
            features = features + mid_conv(block(features))
        y = self._reconstruct(features + first) + base
        return y[..., : h * self.upscale, : w * self.upscale]

    def _reconstruct(self, x_BCHW: Tensor) -> Tensor:
        scales = (2, 2) if self.upscale == 4 else (self.upscale,)
        convs = (self.upconv1, self.upconv2) if self.upscale == 4 else (self.upconv,)
        for conv, scale in zip(convs, scales, strict=True):
            x_BCHW = F.leaky_relu(F.pixel_shuffle(conv(x_BCHW), scale), 0.1)
        return self.last_conv(x_BCHW)


def infer_args(params: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The arguments of the CATANet that these weights fit, or None if they fit none.

    Head widths, patch and group sizes leave no trace in the weights: they are the published ones.
    """
    if "first_conv.weight" not in params or "blocks.0.0.mlp.fn.fc2.bias" not in params:
        return None
    dim = params["first_conv.weight"].shape[0]
    four = "upconv1.weight" in params
    depth = 1 + max(int(name.split(".")[1]) for name in params if name.startswith("blocks."))
    scale = 4 if four else round((params["upconv.weight"].shape[0] / dim) ** 0.5)
    parts = {
        "tab_heads": ("0.iasa_attn.to_q.weight", 0, 9),
        "tab_neurons": ("0.mlp.fn.fc2.weight", 1, 1),
        "lrsa_heads": ("1.layer.0.fn.to_q.weight", 0, 9),
        "lrsa_neurons": ("1.layer.1.fn.fc2.weight", 1, 1),
    }
    args: dict[str, Any] = {"upscale": scale, "dim": dim}
    for name, (suffix, axis, width) in parts.items():
        keys = [f"blocks.{i}.{suffix}" for i in range(depth)]
        args[name] = [params[k].shape[axis] // width if k in params else 0 for k in keys]
    return args


def _depth(
    upscale: int, patch_sizes: Sequence[int], num_tokens: Sequence[int], group_sizes: Sequence[int]
) -> int:
    """The number of blocks.

    Raises:
        ValueError: an argument that no CATANet has.
    """
    if upscale not in (2, 3, 4):
        raise ValueError(f"upscale must be 2, 3 or 4, not {upscale}")
    depth = len(patch_sizes)
    if not depth or len(num_tokens) != depth or len(group_sizes) != depth:
        raise ValueError("patch_sizes, num_tokens and group_sizes need one entry per block")
    if max(*patch_sizes, *num_tokens, *group_sizes) > MAX_SIZE:
        raise ValueError(f"patch_sizes, num_tokens and group_sizes must be at most {MAX_SIZE}")
    if min(patch_sizes) < MIN_PATCH:
        raise ValueError(f"patch_sizes must be at least {MIN_PATCH}, not {min(patch_sizes)}")
    return depth


def _per_block(name: str, value: int | Sequence[int], depth: int) -> list[int]:
    values = [value] * depth if isinstance(value, int) else list(value)
    if len(values) != depth or min(values) < 0:
        raise ValueError(f"{name} needs {depth} numbers >= 0, got {values}")
    return values


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _reflect_up_to(x_BCHW: Tensor, side: int) -> Tensor:
    """Extend height and width to at least `side` by repeated reflection.

    `F.pad` reflects once only, and images may be smaller than half a patch.
    """
    for dim in (2, 3):
        n = x_BCHW.shape[dim]
        if n < side:
            index = mirror_index(n, side, x_BCHW.device, repeat_edge=False)
            x_BCHW = x_BCHW.index_select(dim, index)
    return x_BCHW
