"""How well classes are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def confusion(labels: Tensor, found: Tensor, classes: int) -> Tensor:
    """Counts of (true class, found class): (classes, classes), from two (N,) of indices."""
    pairs = labels * classes + found
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def summary(counts: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Accuracy, macro F1 (both 0..1), and every entry of the confusion matrix by name.

    Args:
        counts: see `confusion`.
        names: of the classes.
    """
    correct, given, true = counts.diag().double(), counts.sum(0).double(), counts.sum(1).double()
    f1 = 2 * correct / (given + true).clamp_min(1)
    matrix = {
        f"{true_name} as {found_name}": float(counts[i, j])
        for i, true_name in enumerate(names)
        for j, found_name in enumerate(names)
    }
    return {"accuracy": float(correct.sum() / counts.sum()), "f1": float(f1.mean()), **matrix}
