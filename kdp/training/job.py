"""What a training is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.config import TrainConfig

Batch = dict[str, Tensor]
Params = dict[str, Tensor]
Metrics = dict[str, dict[str, float]]
Objective = Callable[[nn.Module, Batch, int], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class TrainingJob:
    """What to train, and on what.

    Attributes:
        model: the network, on any device.
        data: samples numbered by (step * batch + position); see `Task.training_data`.
        objective: (model, batch, step) -> the loss and its named parts.
        validate: model -> quality by set and metric.
        primary_metric: the metric of the first set that picks the best; higher is better.
        headline_metrics: what a validation prints; the primary metric where empty.
        settings: the optimisation.
        folder: where checkpoint and curves go.
        seed: of everything random outside the data.
        device: "auto", "cpu", "cuda", ...
        workers: processes that load data.
        extra_modules: modules that learn beside the model and are not part of it.
        after_step: (model, steps done), called after every update, before it is averaged.
        best_from_step: a validation counts as the best from this step on; the last one always does.
        signature: what a checkpoint must agree on to be resumed.
    """

    model: nn.Module
    data: Callable[[int], Dataset[Batch]]
    objective: Objective
    validate: Callable[[nn.Module], Metrics]
    primary_metric: str
    settings: TrainConfig
    folder: Path
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    extra_modules: nn.Module = field(default_factory=nn.Module)
    after_step: Callable[[nn.Module, int], None] = lambda model, step: None
    best_from_step: int = 0
    headline_metrics: tuple[str, ...] = ()
    signature: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingResult:
    """Weights after the last step and at the best validation, with their quality.

    Of several processes only the main one knows the quality and the best weights.
    """

    last: Params
    best: Params
    last_metrics: Metrics
    best_metrics: Metrics
    best_step: int
    device: str
