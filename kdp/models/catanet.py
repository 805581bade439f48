"""CATANet, content-aware token aggregation for image super-resolution (arXiv 2503.06896).

Every width is an argument, block by block, so a teacher and a network rebuilt after pruning are
one class. Parameter names are those of the official checkpoints.

Shape suffixes: B images, C channels, H height, W width, N tokens (H*W), M token centres,
G groups of ordered tokens, S tokens of a group, A heads, D width of a query/key head,
E width of a value head, P patches, L tokens of a patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.models.attention import attend

PATCH_SIZES = (16, 20, 24, 28, 16, 20, 24, 28)
NUM_TOKENS = (16, 32, 64, 128, 16, 32, 64, 128)
GROUP_SIZES = (256, 128, 64, 32, 256, 128, 64, 32)


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
        upscale: int = 2,
        dim: int = 40,
        tab_heads: int | Sequence[int] = 4,
        tab_neurons: int | Sequence[int] = 96,
        lrsa_heads: int | Sequence[int] = 4,
        lrsa_neurons: int | Sequence[int] = 96,
        qk_head_dim: int = 9,
        v_head_dim: int = 10,
        patch_sizes: Sequence[int] = PATCH_SIZES,
        num_tokens: Sequence[int] = NUM_TOKENS,
        group_sizes: Sequence[int] = GROUP_SIZES,
        n_iters: int = 5,
        ema_decay: float = 0.999,
    ) -> None:
        super().__init__()
        if upscale not in (2, 3, 4):
            raise ValueError(f"upscale must be 2, 3 or 4, not {upscale}")
        depth = len(patch_sizes)
        if not depth or len(num_tokens) != depth or len(group_sizes) != depth:
            raise ValueError("patch_sizes, num_tokens and group_sizes need one entry per block")
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
            tab = TAB(
                dim,
                t_heads,
                t_neurons,
                head_dims,
                num_tokens[i],
                group_sizes[i],
                n_iters,
                ema_decay,
            )
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
        # With channels last, tokens and feature maps are views of one another.
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


class TAB(nn.Module):
    """Token-aggregation block: tokens attend to their like, wherever they are, and to centres.

    Tokens are ordered by their nearest centre (cosine similarity, stable sort), attend inside
    groups of that order (IASA) and to the centres (IRCA), and return to their places. In training
    the centres are refined on the batch and the stored ones follow by an exponential average.
    """

    means: Tensor
    initted: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        neurons: int,
        head_dims: tuple[int, int],
        num_tokens: int,
        group_size: int,
        n_iters: int,
        ema_decay: float,
    ) -> None:
        super().__init__()
        self.heads, self.n_iters, self.ema_decay = heads, n_iters, ema_decay
        if heads:
            self.register_buffer("means", torch.zeros(num_tokens, dim))
            self.register_buffer("initted", torch.tensor(False))
            self.norm = nn.LayerNorm(dim)
            self.irca_attn = IRCA(dim, heads, head_dims)
            self.iasa_attn = IASA(dim, heads, head_dims, group_size)
            self.conv1x1 = nn.Conv2d(dim, dim, 1, bias=False)
        self.mlp = PreNormFFN(dim, neurons)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.heads:
            x_BCHW = x_BCHW + self.conv1x1(self._aggregate(x_BCHW))
        return x_BCHW + self.mlp(x_BCHW)

    def _aggregate(self, x_BCHW: Tensor) -> Tensor:
        tokens_BNC = self.norm(_to_tokens(x_BCHW))
        unit_BNC = F.normalize(tokens_BNC, dim=-1)
        centres_MC = self._centres(tokens_BNC, unit_BNC)
        k_AMD, v_AME = self.irca_attn(centres_MC)
        with torch.no_grad():
            order_BN = order_tokens(_nearest(unit_BNC, F.normalize(centres_MC, dim=-1)))
        out_BNC = self.iasa_attn(tokens_BNC, order_BN, k_AMD, v_AME)
        if self.training:
            self._remember(centres_MC.detach())
        return _to_map(out_BNC, x_BCHW.shape[-2:])

    def _centres(self, tokens_BNC: Tensor, unit_BNC: Tensor) -> Tensor:
        centres_MC = (
            self.means if self._has_centres() else _segment_means(tokens_BNC, len(self.means))
        )
        centres_MC = centres_MC.detach()
        if not self.training:
            return centres_MC
        with torch.no_grad():
            for _ in range(self.n_iters - 1):
                centres_MC = _refine(unit_BNC, centres_MC)
        return _refine(unit_BNC, centres_MC)

    def _has_centres(self) -> bool:
        # A network of shapes only (device "meta") is counted as a trained one.
        return self.initted.is_meta or bool(self.initted)

    @torch.no_grad()
    def _remember(self, centres_MC: Tensor) -> None:
        if self._has_centres():
            self.means.lerp_(centres_MC, 1 - self.ema_decay)
        else:
            self.means.copy_(centres_MC)
            self.initted.fill_(True)


class IRCA(nn.Module):
    """Keys and values of the token centres, for attention from every token to every centre."""

    def __init__(self, dim: int, heads: int, head_dims: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.to_k = nn.Linear(dim, heads * head_dims[0], bias=False)
        self.to_v = nn.Linear(dim, heads * head_dims[1], bias=False)

    def forward(self, centres_MC: Tensor) -> tuple[Tensor, Tensor]:
        """(M, C) -> keys (A, M, D) and values (A, M, E)."""
        k_MAD = self.to_k(centres_MC).unflatten(-1, (self.heads, -1))
        v_MAE = self.to_v(centres_MC).unflatten(-1, (self.heads, -1))
        return k_MAD.transpose(0, 1), v_MAE.transpose(0, 1)


class IASA(nn.Module):
    """Attention of each group of ordered tokens to itself, the next group, and the centres."""

    def __init__(self, dim: int, heads: int, head_dims: tuple[int, int], group_size: int) -> None:
        super().__init__()
        self.heads, self.group_size = heads, group_size
        self.to_q = nn.Linear(dim, heads * head_dims[0], bias=False)
        self.to_k = nn.Linear(dim, heads * head_dims[0], bias=False)
        self.to_v = nn.Linear(dim, heads * head_dims[1], bias=False)
        self.proj = nn.Linear(heads * head_dims[1], dim, bias=False)

    def forward(self, tokens_BNC: Tensor, order_BN: Tensor, k_AMD: Tensor, v_AME: Tensor) -> Tensor:
        """(B, N, C) tokens in image order -> (B, N, C) in image order."""
        b, n, _ = tokens_BNC.shape
        size = min(n, self.group_size)
        groups = -(-n // size)
        # The last group is filled, and followed by one more, with the mirrored tail.
        padded_BT = order_BN[:, _mirror_index(n, (groups + 1) * size, order_BN.device)]
        x_BTC = _take(tokens_BNC, padded_BT)
        q = self.to_q(x_BTC[:, : groups * size])
        q_XASD = q.reshape(b * groups, size, self.heads, -1).transpose(1, 2)
        k, v = (self._windows(linear(x_BTC), size) for linear in (self.to_k, self.to_v))
        out_XASE = attend(q_XASD, k, v) + attend(
            q_XASD, k_AMD.expand(b * groups, -1, -1, -1), v_AME.expand(b * groups, -1, -1, -1)
        )
        out_BNC = out_XASE.transpose(1, 2).reshape(b, groups * size, -1)[:, :n]
        return self.proj(_take(out_BNC, order_BN.argsort(dim=-1)))

    def _windows(self, x_BTF: Tensor, size: int) -> Tensor:
        """(B, (G+1)*S, A*D) -> (B*G, A, 2*S, D): each group with the one after it."""
        x_BGSF = x_BTF.unflatten(1, (-1, size))
        pairs = torch.cat([x_BGSF[:, :-1], x_BGSF[:, 1:]], dim=2)
        return pairs.reshape(-1, 2 * size, self.heads, x_BTF.shape[-1] // self.heads).transpose(
            1, 2
        )


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
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        grid = x_BHWC.index_select(1, rows.flatten()).index_select(2, cols.flatten())
        grid = grid.view(b, len(rows), size, len(cols), size, c).transpose(2, 3)
        patches_XLC = grid.reshape(-1, size * size, c)
        patches_XLC = patches_XLC + self.layer[0](patches_XLC)
        grid = patches_XLC.view(b, len(rows), len(cols), size, size, c).transpose(2, 3)
        grid = grid.reshape(b, rows.numel(), cols.numel(), c)
        out_BHWC = _average_back(_average_back(grid, cols.flatten(), w, 2), rows.flatten(), h, 1)
        return out_BHWC.permute(0, 3, 1, 2)


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
        tokens_BNC = _to_tokens(x_BCHW)
        if self.fn.neurons:
            tokens_BNC = self.norm(tokens_BNC)
        return _to_map(self.fn(tokens_BNC, x_BCHW.shape[-2:]), x_BCHW.shape[-2:])


class ConvFFN(nn.Module):
    """Two linear maps with a GELU and a depthwise 5x5 branch between; no neurons leave a bias."""

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
    """What a linear map without inputs gives: its bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.bias.expand_as(x_BNC)


class DepthwiseConv(nn.Module):
    """Depthwise 5x5 convolution and GELU on tokens that lie as an image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.depthwise_conv = nn.Sequential(conv, nn.GELU())

    def forward(self, x_BNC: Tensor, size: Sequence[int]) -> Tensor:
        return _to_tokens(self.depthwise_conv(_to_map(x_BNC, size)))


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


def _to_tokens(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.permute(0, 2, 3, 1).flatten(1, 2)


def _to_map(x_BNC: Tensor, size: Sequence[int]) -> Tensor:
    # This way round also one picture keeps the strides of channels last, which convolutions need.
    return x_BNC.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def _reflect_up_to(x_BCHW: Tensor, side: int) -> Tensor:
    """Extend height and width to `side` by reflection, as often as that takes."""
    for dim in (2, 3):
        n = x_BCHW.shape[dim]
        if n < side:
            index = _mirror_index(n, side, x_BCHW.device, repeat_edge=False)
            x_BCHW = x_BCHW.index_select(dim, index)
    return x_BCHW


def _mirror_index(n: int, length: int, device: torch.device, repeat_edge: bool = True) -> Tensor:
    """0..n-1, then backwards, then forwards ..., `length` in all."""
    edge = 0 if repeat_edge else 1
    index = torch.arange(length, device=device) % (2 * (n - edge))
    return torch.where(index < n, index, 2 * n - 1 - edge - index)


def _patch_index(side: int, size: int, device: torch.device) -> Tensor:
    """(patches, size) positions; patches step by size - 2, and the last is moved back inside."""
    step = size - 2
    starts = torch.arange(0, max(side - size + step, 1), step, device=device)
    return starts.clamp(max=side - size)[:, None] + torch.arange(size, device=device)


def _average_back(grid: Tensor, index: Tensor, side: int, dim: int) -> Tensor:
    """Put overlapping lines back in their places and average them by how many there are."""
    shape = [*grid.shape]
    shape[dim] = side
    total = grid.new_zeros(shape).index_add(dim, index, grid)
    count = grid.new_zeros(side).index_add(0, index, grid.new_ones(len(index)))
    return total / count.view(-1, *[1] * (grid.ndim - 1 - dim))


def order_tokens(nearest_BN: Tensor) -> Tensor:
    """Positions of the tokens ordered by their centre; ties keep image order on every device."""
    return nearest_BN.argsort(dim=-1, stable=True)


def _take(x_BNF: Tensor, index_BT: Tensor) -> Tensor:
    """Rows of each picture, (B, T, F); whole rows are copied faster than `gather` does."""
    b, n, f = x_BNF.shape
    first = torch.arange(0, b * n, n, device=x_BNF.device).unsqueeze(1)
    rows = x_BNF.reshape(b * n, f).index_select(0, (index_BT + first).flatten())
    return rows.view(b, -1, f)


def _nearest(unit_BNC: Tensor, unit_MC: Tensor) -> Tensor:
    """Index of the centre of highest cosine similarity, (B, N); both of length 1."""
    return (unit_BNC @ unit_MC.T).argmax(-1)


def _segment_means(tokens_BNC: Tensor, count: int) -> Tensor:
    """Means of `count` consecutive segments of the tokens, over the batch: (count, C)."""
    n = tokens_BNC.shape[1]
    tail = tokens_BNC[:, n - (count - n % count) :].flip(1)
    padded = torch.cat([tokens_BNC, tail], dim=1)
    return padded.unflatten(1, (count, -1)).mean(dim=(0, 2))


def _refine(unit_BNC: Tensor, centres_MC: Tensor) -> Tensor:
    """One k-means step on the sphere; a centre without tokens keeps its direction."""
    centres_MC = F.normalize(centres_MC, dim=-1)
    nearest = _nearest(unit_BNC, centres_MC).flatten()
    members_NM = unit_BNC.new_zeros(len(nearest), len(centres_MC))
    members_NM.scatter_(1, nearest.unsqueeze(1), 1.0)
    sums_MC = members_NM.T @ unit_BNC.flatten(0, 1)
    filled_M1 = members_NM.any(dim=0).unsqueeze(1)
    return torch.where(filled_M1, F.normalize(sums_MC, dim=-1), centres_MC)
