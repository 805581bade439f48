"""CATANet's local-region block; `kdp.models.catanet` has the shape suffixes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdp.models.catanet_layers import PreNormAttention, PreNormFFN


class LRSA(nn.Module):
    """Local-region block: self-attention in overlapping square patches, then a ConvFFN."""

    def __init__(
        self, dim: int, heads: int, neurons: int, head_dims: tuple[int, int], patch_size: int
    ) -> None:
        super().__init__()
        self.heads, self.patch_size = heads, patch_size
        attention = PreNormAttention(dim, heads, head_dims) if heads else nn.Identity()
        self.layer = nn.ModuleList([attention, PreNormFFN(dim, neurons)])

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.heads:
            x_BCHW = self._attend_in_patches(x_BCHW)
        return x_BCHW + self.layer[1](x_BCHW)

    def _attend_in_patches(self, x_BCHW: Tensor) -> Tensor:
        b, c, h, w = x_BCHW.shape
        size = self.patch_size
        rows, cols = (_patch_index(side, size, x_BCHW.device) for side in (h, w))
        # Gathering rows, then columns, repeats the overlaps: all patches lie side by side.
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        grid = x_BHWC.index_select(1, rows.flatten()).index_select(2, cols.flatten())
        grid = grid.view(b, len(rows), size, len(cols), size, c).transpose(2, 3)
        patches_XLC = grid.reshape(-1, size * size, c)
        patches_XLC = patches_XLC + self.layer[0](patches_XLC)
        # The way back: patches to the grid, then averages over the pixels that patches share.
        grid = patches_XLC.view(b, len(rows), len(cols), size, size, c).transpose(2, 3)
        grid = grid.reshape(b, rows.numel(), cols.numel(), c)
        out_BHWC = _average_back(_average_back(grid, cols.flatten(), w, 2), rows.flatten(), h, 1)
        return out_BHWC.permute(0, 3, 1, 2)


def _patch_index(side: int, size: int, device: torch.device) -> Tensor:
    """(patches, size) positions; the stride is size - 2, and the last patch is shifted inside."""
    step = size - 2
    starts = torch.arange(0, max(side - size + step, 1), step, device=device)
    return starts.clamp(max=side - size)[:, None] + torch.arange(size, device=device)


def _average_back(grid: Tensor, index: Tensor, side: int, dim: int) -> Tensor:
    """Scatter overlapping lines back to their positions along `dim` and average them."""
    shape = [*grid.shape]
    shape[dim] = side
    total = grid.new_zeros(shape).index_add(dim, index, grid)
    count = grid.new_zeros(side).index_add(0, index, grid.new_ones(len(index)))
    return total / count.view(-1, *[1] * (grid.ndim - 1 - dim))
