"""How well classes are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def divergence(output: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(output)) of each sample: (B,), from two (B, classes)."""
    log_p, log_q = F.log_softmax(reference, 1), F.log_softmax(output, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


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


def class_mean(labels: Tensor, right: Tensor) -> float:
    """The mean over the classes that occur of the share of right answers (macro-average, 0..1).

    Args:
        labels: (N,) true classes.
        right: (N,) whether each was found.
    """
    shares = [right[labels == label].double().mean() for label in labels.unique()]
    return float(torch.stack(shares).mean())


def by_part(what: str, parts: Sequence[str], right: Tensor) -> dict[str, float]:
    """Shares of right answers (0..1) as "<what> <part>", in alphabetical order.

    Args:
        what: the parts are.
        parts: the one of each answer.
        right: (N,) of booleans.
    """
    found: dict[str, float] = {}
    for part in sorted(set(parts)):
        own = torch.tensor([one == part for one in parts])
        found[f"{what} {part}"] = float(right[own].double().mean())
    return found
