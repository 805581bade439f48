"""Scaled dot-product attention for heads whose query and value widths differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
from torch import Tensor

_true_widths: ContextVar[bool] = ContextVar("true_widths", default=False)


@contextmanager
def true_widths() -> Iterator[None]:
    """Attend with unpadded head widths: to count operations, and as a slow reference."""
    token = _true_widths.set(True)
    try:
        yield
    finally:
        _true_widths.reset(token)


def attend(q_XAQD: Tensor, k_XAKD: Tensor, v_XAKE: Tensor) -> Tensor:
    """Softmax attention; query and key heads of width D, value heads of width E.

    Fused kernels need D == E (and, on a GPU, a multiple of 8), so all three are zero-padded to one
    width while the scale stays D**-0.5. Zeros change neither the dot products nor the values.

    Shapes: (X, A, Q, D), (X, A, K, D), (X, A, K, E) -> (X, A, Q, E), with A heads.
    """
    d, e = q_XAQD.shape[-1], v_XAKE.shape[-1]
    if _true_widths.get():
        return F.scaled_dot_product_attention(q_XAQD, k_XAKD, v_XAKE)
    width = max(d, e) if q_XAQD.device.type == "cpu" else -(-max(d, e) // 8) * 8
    q, k, v = (_widen(t, width) for t in (q_XAQD, k_XAKD, v_XAKE))
    return F.scaled_dot_product_attention(q, k, v, scale=d**-0.5)[..., :e]


def _widen(tensor: Tensor, width: int) -> Tensor:
    missing = width - tensor.shape[-1]
    return F.pad(tensor, (0, missing)) if missing else tensor.contiguous()
