"""Evaluating several networks on the same samples, each of which is read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from kdp.progress import Advance
from kdp.tasks.base import Metrics

EvaluateSet = Callable[[Sequence[nn.Module], Any, Advance], list[Metrics]]
"""(networks, samples of a set, advance) -> the metrics of every network."""


def no_progress(count: int = 1) -> None:
    """Report nothing."""


def evaluate_sets(
    models: Sequence[nn.Module],
    sets: Mapping[str, Any],
    evaluate_set: EvaluateSet,
    advance: Advance = no_progress,
) -> list[dict[str, Metrics]]:
    """Metrics of every network by evaluation set; the networks are left in eval mode.

    Reading and decoding a sample takes longer than a small network's forward pass, so that
    `evaluate_set` is to run all networks on a sample before it reads the next one.

    Args:
        models: each on its own device.
        sets: samples by name.
        evaluate_set: evaluates one set.
        advance: called with the number of samples that were finished.
    """
    for model in models:
        model.eval()
    results: list[dict[str, Metrics]] = [{} for _ in models]
    for name, samples in sets.items():
        for result, metrics in zip(results, evaluate_set(models, samples, advance), strict=True):
            result[name] = metrics
    return results


def validate_sets(
    model: nn.Module, sets: Mapping[str, Any], validate_set: Callable[[nn.Module, Any], Metrics]
) -> dict[str, Metrics]:
    """Metrics and loss of one network by evaluation set; it is left in eval mode.

    Args:
        model: on its own device.
        sets: samples by name.
        validate_set: (network, samples of a set) -> metrics, `loss` among them.
    """
    model.eval()
    return {name: validate_set(model, samples) for name, samples in sets.items()}
