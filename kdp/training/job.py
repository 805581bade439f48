"""What the training loop receives and returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.config import TrainSettings
from kdp.errors import KdpError
from kdp.training.running import RunningMetrics

Batch = dict[str, Tensor]
Params = dict[str, Tensor]
Metrics = dict[str, dict[str, float]]
Objective = Callable[[nn.Module, Batch, int], tuple[Tensor, dict[str, Tensor]]]


WANDB_FOLDER = "wandb"
"""The folder that Weights & Biases makes in the folder of a run."""


@dataclass(frozen=True)
class TrackedRun:
    """What trackers show of a run beside its curves.

    Attributes:
        name: of the run.
        config: the configuration in plain values; its sections are mappings.
        numbers: logged once, before the first step.
    """

    name: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


def check_batch(sample: Batch, batch_size: int) -> None:
    """Make sure that a batch fits into half of the memory of this machine.

    Args:
        sample: one of the batch.
        batch_size: samples of this process.

    Raises:
        KdpError: it does not.
    """
    needed = batch_size * sum(tensor.nbytes for tensor in sample.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory / 2:
        raise KdpError(
            f"a batch of {batch_size} samples takes {needed / 1e9:,.0f} GB, more than half of the "
            f"{memory / 1e9:.0f} GB of this machine: lower batch_size"
        )


@dataclass
class TrainingJob:
    """Everything the training loop needs.

    Attributes:
        model: the network, on any device.
        data: number of samples -> the samples; sample n is at position n % batch_size of step
            n // batch_size (see `Task.training_data`).
        objective: (model, batch, step) -> the loss and its named parts.
        validate: model -> quality by set and metric; `loss` among the metrics is the loss on a set.
        evaluate_at_end: the same on sets that validations leave out, called once with the best
            weights; None where there are none.
        primary_metric: the metric of the first set that picks the best; higher is better.
        headline_metrics: the metrics that a validation prints; the primary metric if empty.
        settings: optimizer, schedule, batch size, intervals.
        folder: for checkpoint and curves.
        seed: of everything random except the data.
        device: "auto", "cpu", "cuda", ...
        workers: number of processes that load data.
        running_metrics: observes the batches of the objective; the curves show its means.
        extra_modules: modules that are trained along with the model but are not part of it.
        after_step: (model, finished steps); called after every update, before averaging.
        best_from_step: the first step whose validation may count as the best.
        signature: settings that a checkpoint must share to be resumed.
        targets: state of the files that the run will replace, see `Checkpoint.targets`.
        tracked: what trackers show of the run beside its curves.
    """

    model: nn.Module
    data: Callable[[int], Dataset[Batch]]
    objective: Objective
    validate: Callable[[nn.Module], Metrics]
    primary_metric: str
    settings: TrainSettings
    folder: Path
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    running_metrics: RunningMetrics = field(default_factory=RunningMetrics)
    extra_modules: nn.Module = field(default_factory=nn.Module)
    evaluate_at_end: Callable[[nn.Module], Metrics] | None = None
    after_step: Callable[[nn.Module, int], None] = lambda model, step: None
    best_from_step: int = 0
    headline_metrics: tuple[str, ...] = ()
    signature: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, str | None] = field(default_factory=dict)
    tracked: TrackedRun = field(default_factory=TrackedRun)


@dataclass(frozen=True)
class TrainingResult:
    """Averaged weights after the last step and at the best validation, with their metrics.

    In a distributed run only the main process knows metrics and best weights; they are empty in
    the others.

    Attributes:
        last, best: state dicts, on the CPU.
        last_metrics, best_metrics: metrics by evaluation set; those of sets that are measured at
            the end alone are among the best ones.
        best_step: the step of the best validation.
        device: the training ran on.
    """

    last: Params
    best: Params
    last_metrics: Metrics
    best_metrics: Metrics
    best_step: int
    device: str
