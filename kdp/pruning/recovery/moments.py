"""Least squares from sums over samples, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over rows of inputs x (with a 1 appended) and targets y.

    Attributes:
        gram: sum of x x^T, (I + 1, I + 1).
        cross: sum of x y^T, (I + 1, O).
        square: sum of y^2, (O,).
        count: number of rows.
    """

    gram: Tensor
    cross: Tensor
    square: Tensor
    count: int = 0

    @classmethod
    def zeros(cls, inputs: int, outputs: int) -> Moments:
        """Of no rows."""
        options = {"dtype": torch.float64}
        return cls(
            torch.zeros(inputs + 1, inputs + 1, **options),  # type: ignore[call-overload]
            torch.zeros(inputs + 1, outputs, **options),  # type: ignore[call-overload]
            torch.zeros(outputs, **options),  # type: ignore[call-overload]
        )

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows: x is (P, I), y is (P, O)."""
        x, y = x.double(), y.double()
        x = torch.cat([x, x.new_ones(len(x), 1)], 1)
        self.gram += (x.T @ x).cpu()
        self.cross += (x.T @ y).cpu()
        self.square += y.square().sum(0).cpu()
        self.count += len(x)

    def error(self, weight: Tensor) -> float:
        """Sum of squared errors of a weight (O, I + 1), whose last column is the bias."""
        quadratic = ((weight @ self.gram) * weight).sum()
        return float(quadratic - 2 * (weight.T * self.cross).sum() + self.square.sum())


def refit(moments: Moments, weight: Tensor, ridge: float, intercept: bool) -> Tensor:
    """The weight that explains the targets best, drawn towards the present one.

    [W' b'] = (Y X^T + L [W b]) (X X^T + L)^-1 with L = diag(l, .., l, 0), l = ridge * mean of the
    diagonal of X X^T (GRAIL, arXiv 2602.23795, which draws towards zero).

    Args:
        moments: of the layer's inputs and targets.
        weight: the present one, (O, I + 1), float64; its last column is the bias.
        ridge: strength.
        intercept: whether the bias may change.
    """
    used = len(moments.gram) - (0 if intercept else 1)
    inputs = len(moments.gram) - 1
    gram, cross = moments.gram[:used, :used], moments.cross[:used]
    if not intercept:  # the bias stays: its share of the targets is not the inputs' to explain
        cross = cross - moments.gram[:used, -1:] * weight[:, -1]
    mean = float(gram.diagonal()[:inputs].mean()) if inputs else 0.0
    strength = torch.zeros(used, dtype=torch.float64)
    strength[:inputs] = ridge * (mean or 1.0)  # inputs that are always zero keep their weights
    right = cross + strength[:, None] * weight[:, :used].T
    fitted = torch.linalg.solve(gram + strength.diag(), right).T
    return torch.cat([fitted, weight[:, used:]], 1)


def blend(moments: Moments, before: Tensor, after: Tensor) -> float:
    """Share of `after` in 0..1 that has the least error on held-out samples.

    The error of `before + t (after - before)` is quadratic in t, so the minimum is exact.
    """
    step = after - before
    curvature = ((step @ moments.gram) * step).sum()
    slope = ((before @ moments.gram) * step).sum() - (step.T * moments.cross).sum()
    if curvature <= 0:
        return 0.0
    return float((-slope / curvature).clamp(0, 1))
