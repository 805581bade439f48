"""CATANet's token-aggregation block; `kdp.models.catanet` has the shape suffixes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.models.attention import attend
from kdp.models.catanet_layers import PreNormFFN, mirror_index, to_map, to_tokens


class TAB(nn.Module):
    """Token-aggregation block: attention among similar tokens, wherever they lie in the image.

    Tokens are sorted by their nearest centre (cosine similarity), attend within groups of that
    order (IASA) and to the centres (IRCA), and return to their positions. In training the centres
    are refined on the batch, and the stored ones follow as an exponential moving average.
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
        tokens_BNC = self.norm(to_tokens(x_BCHW))
        unit_BNC = F.normalize(tokens_BNC, dim=-1)
        centres_MC = self._centres(tokens_BNC, unit_BNC)
        k_AMD, v_AME = self.irca_attn(centres_MC)
        # An index has no gradient; the tokens and the keys of the centres carry it.
        with torch.no_grad():
            order_BN = order_tokens(_nearest(unit_BNC, F.normalize(centres_MC, dim=-1)))
        out_BNC = self.iasa_attn(tokens_BNC, order_BN, k_AMD, v_AME)
        if self.training:
            self._remember(centres_MC.detach())
        return to_map(out_BNC, x_BCHW.shape[-2:])

    def _centres(self, tokens_BNC: Tensor, unit_BNC: Tensor) -> Tensor:
        centres_MC = (
            self.means if self._has_centres() else _segment_means(tokens_BNC, len(self.means))
        )
        centres_MC = centres_MC.detach()
        if not self.training:
            return centres_MC
        # Gradients reach the tokens through the last k-means step only, not through the chain.
        with torch.no_grad():
            for _ in range(self.n_iters - 1):
                centres_MC = _refine(unit_BNC, centres_MC)
        return _refine(unit_BNC, centres_MC)

    def _has_centres(self) -> bool:
        # On the meta device (counting) and in an export the flag has no value to branch on; both
        # concern trained networks, which have centres.
        return self.initted.is_meta or torch.compiler.is_exporting() or bool(self.initted)

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
        # Every group attends to itself and the next one. The mirrored tail of the order fills the
        # last group and serves as the next group of the last: G + 1 groups of S tokens in all.
        padded_BT = order_BN[:, mirror_index(n, (groups + 1) * size, order_BN.device)]
        x_BTC = _take(tokens_BNC, padded_BT)
        q = self.to_q(x_BTC[:, : groups * size])
        q_XASD = q.reshape(b * groups, size, self.heads, -1).transpose(1, 2)
        k, v = (self._windows(linear(x_BTC), size) for linear in (self.to_k, self.to_v))
        out_XASE = attend(q_XASD, k, v) + attend(
            q_XASD, k_AMD.expand(b * groups, -1, -1, -1), v_AME.expand(b * groups, -1, -1, -1)
        )
        # Cut the padding, then undo the sort: argsort of a permutation is its inverse.
        out_BNC = out_XASE.transpose(1, 2).reshape(b, groups * size, -1)[:, :n]
        return self.proj(_take(out_BNC, order_BN.argsort(dim=-1)))

    def _windows(self, x_BTF: Tensor, size: int) -> Tensor:
        """(B, (G+1)*S, A*D) -> (B*G, A, 2*S, D): each group with the one after it."""
        x_BGSF = x_BTF.unflatten(1, (-1, size))
        pairs = torch.cat([x_BGSF[:, :-1], x_BGSF[:, 1:]], dim=2)
        return pairs.reshape(-1, 2 * size, self.heads, x_BTF.shape[-1] // self.heads).transpose(
            1, 2
        )


def order_tokens(nearest_BN: Tensor) -> Tensor:
    """Positions of the tokens sorted by their centre; tokens of a centre keep image order."""
    n = nearest_BN.shape[-1]
    # The order within a centre decides where groups begin, so it must not depend on the device.
    # Distinct keys make any sort stable; ONNX has no stable sort.
    return (nearest_BN * n + torch.arange(n, device=nearest_BN.device)).argsort(dim=-1)


def _take(x_BNF: Tensor, index_BT: Tensor) -> Tensor:
    """Rows of each image, (B, T, F); `index_select` of whole rows is faster than `gather`."""
    b, n, f = x_BNF.shape
    first = torch.arange(0, b * n, n, device=x_BNF.device).unsqueeze(1)
    rows = x_BNF.reshape(b * n, f).index_select(0, (index_BT + first).flatten())
    return rows.view(b, -1, f)


def _nearest(unit_BNC: Tensor, unit_MC: Tensor) -> Tensor:
    """Index (B, N) of the most similar centre; tokens and centres have unit length."""
    return (unit_BNC @ unit_MC.T).argmax(-1)


def _segment_means(tokens_BNC: Tensor, count: int) -> Tensor:
    """Initial centres (count, C): means of consecutive segments of tokens over the batch."""
    n = tokens_BNC.shape[1]
    # As in the original program, a whole line of padding is added even if `count` divides n.
    tail = tokens_BNC[:, n - (count - n % count) :].flip(1)
    padded = torch.cat([tokens_BNC, tail], dim=1)
    return padded.unflatten(1, (count, -1)).mean(dim=(0, 2))


def _refine(unit_BNC: Tensor, centres_MC: Tensor) -> Tensor:
    """One spherical k-means step; a centre without tokens keeps its direction."""
    centres_MC = F.normalize(centres_MC, dim=-1)
    nearest = _nearest(unit_BNC, centres_MC).flatten()
    # Sums by a product with the one-hot assignment: deterministic, which index_add on a GPU is not.
    members_NM = unit_BNC.new_zeros(len(nearest), len(centres_MC))
    members_NM.scatter_(1, nearest.unsqueeze(1), 1.0)
    sums_MC = members_NM.T @ unit_BNC.flatten(0, 1)
    filled_M1 = members_NM.any(dim=0).unsqueeze(1)
    return torch.where(filled_M1, F.normalize(sums_MC, dim=-1), centres_MC)
