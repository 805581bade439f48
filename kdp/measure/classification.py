"""Classification metrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def divergence(output: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(output)) of each sample: (B,), from logits (B, classes)."""
    log_p, log_q = F.log_softmax(reference, 1), F.log_softmax(output, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def confusion(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Confusion matrix (true class, predicted class) of counts, from two (N,) of class indices."""
    pairs = labels * classes + predicted
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def summary(counts: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Accuracy and macro F1 (both 0..1), and every entry of the confusion matrix by name.

    Args:
        counts: see `confusion`.
        names: class names.
    """
    correct, predicted, true = (
        counts.diag().double(),
        counts.sum(0).double(),
        counts.sum(1).double(),
    )
    f1 = 2 * correct / (predicted + true).clamp_min(1)
    matrix = {
        f"{true_name} as {predicted_name}": float(counts[i, j])
        for i, true_name in enumerate(names)
        for j, predicted_name in enumerate(names)
    }
    return {"accuracy": float(correct.sum() / counts.sum()), "f1": float(f1.mean()), **matrix}


def class_mean(labels: Tensor, correct: Tensor) -> float:
    """Macro-average accuracy (0..1): the mean over the classes that occur of their accuracies.

    Args:
        labels: (N,) true classes.
        correct: (N,) whether each prediction is correct.
    """
    accuracies = [correct[labels == label].double().mean() for label in labels.unique()]
    return float(torch.stack(accuracies).mean())


def by_part(what: str, parts: Sequence[str], correct: Tensor) -> dict[str, float]:
    """Accuracy (0..1) of every part of the data as "<what> <part>", in alphabetical order.

    Args:
        what: what the parts are, such as "device".
        parts: part of each sample.
        correct: (N,) whether each prediction is correct.
    """
    accuracies: dict[str, float] = {}
    for part in sorted(set(parts)):
        members = torch.tensor([other == part for other in parts])
        accuracies[f"{what} {part}"] = float(correct[members].double().mean())
    return accuracies
