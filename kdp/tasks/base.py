"""What the stages ask of a family, in one protocol for each kind of work.

A task is made for one network (`arch`, as an artifact holds it) and one configuration. Training
needs `TrainingTask`, evaluation `EvaluationTask`, pruning `PruningTask`. Every family's task is all
three (`Task`); a stage names the smallest protocol that it needs, so that a reader sees what it can
touch. `kdp infer` and `kdp export` do not use the task; see `kdp.tasks.family`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.progress import Advance
from kdp.pruning.groups import Group

Batch = dict[str, Tensor]
Metrics = dict[str, float]
Prediction = dict[str, str | int | float]
"""One row of a table of predictions."""


class ExampleTask(Protocol):
    """Inputs of the network that need no data: for counting, timing and shape checks."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input that MACs are counted for."""

    @property
    def latency_size(self) -> tuple[int, int]:
        """(height, width) of the input that latency is measured on."""

    def example(self, size: Sequence[int]) -> Tensor:
        """A fixed random input of one sample with the given (height, width), on the CPU."""


class LossTask(Protocol):
    """Batches, losses and taps: what training and importance have in common."""

    @property
    def training_samples(self) -> Sequence[Any]:
        """What training samples are made of, such as images, in order; see `kdp.data.content`."""

    def inputs(self, batch: Batch) -> Tensor:
        """The network's input, taken from a prepared batch."""

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss against the ground truth, a scalar."""

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """Distance of each sample's output from a reference output: (B,)."""

    def taps(self, model: nn.Module) -> list[str]:
        """Names of the modules whose outputs are the features to compare."""


class TrainingTask(LossTask, ExampleTask, Protocol):
    """What training and distillation need."""

    @property
    def task_reduction(self) -> Literal["mean", "sum"]:
        """What weights of distillation losses are relative to where the configuration is silent."""

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        """A training batch with the inputs that are computed on the batch's own device.

        Args:
            batch: collated samples of `training_data`.
            augment: apply the random changes that the configuration asks for, by torch's global
                generator.
        """

    def sample_metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Metrics of each sample of a training batch, (B,) by name, for the curves.

        Named as in `EvaluationTask.evaluate`, and cheap beside a step; {} where none is.
        """

    def confidence_map(self, output: Tensor) -> Tensor:
        """Confidence of an output at each position of its maps: (B, positions).

        The positions of the largest map come first.

        Raises:
            KdpError: this family's outputs have no confidence by position.
        """

    def training_data(self, length: int) -> Dataset[Batch]:
        """Samples numbered 0..length-1, each fully determined by its number and the seed."""

    @property
    def sample_counts(self) -> dict[str, int]:
        """Number of samples for training (`training`) and in each evaluation set."""

    def check_data(self) -> dict[str, int]:
        """Read all data once, and count the samples by set.

        Raises:
            KdpError: something is missing or corrupt; the message names it.
        """


class EvaluationTask(ExampleTask, Protocol):
    """What evaluation and comparison need."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs; () where there are none."""

    @property
    def primary_metric(self) -> str:
        """The metric that picks the best checkpoint; higher is better."""

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """Up to three metrics that a validation prints and plots; empty: the primary one."""

    @property
    def metric_protocol(self) -> str:
        """How quality is measured, in words; networks with the same one can be compared."""

    @property
    def evaluation_sets(self) -> Mapping[str, Sequence[Any]]:
        """The samples that `evaluate` measures on, by set; see `kdp.data.content`."""

    def evaluate(self, model: nn.Module) -> dict[str, Metrics]:
        """Metrics on every evaluation set; the model is left in eval mode."""

    def validate(self, model: nn.Module) -> dict[str, Metrics]:
        """`evaluate` during training, with `loss` on every set where the family computes it.

        It is the loss against the ground truth, without distillation. Sets that the configuration
        wants to be measured at the end alone are left out.
        """

    def evaluate_at_end(self, model: nn.Module) -> dict[str, Metrics]:
        """`validate` on the sets that it leaves out."""

    def evaluate_all(
        self, models: Sequence[nn.Module], advance: Advance
    ) -> list[dict[str, Metrics]]:
        """`evaluate` of several networks.

        Args:
            models: each on its own device.
            advance: called with the number of samples that all networks have finished.
        """

    def predictions(self, model: nn.Module) -> list[Prediction]:
        """One row for each evaluation sample, the same on every run.

        Measured numbers are text with a fixed number of digits, so that files can be compared.
        """

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Outputs of the networks on evaluation samples, side by side.

        Args:
            models: in eval mode.
            labels: short names of the models, for the captions.

        Yields:
            A name, and an (H, W, 3) uint8 RGB image.
        """


class PruningTask(LossTask, ExampleTask, Protocol):
    """What pruning needs."""

    def calibration_data(self, count: int | None = None) -> Batch:
        """The prepared batch that importance is measured on, without augmentation.

        Args:
            count: number of samples; that of the configuration if not given.
        """

    def groups(self, model: nn.Module) -> list[Group]:
        """The prunable groups, in the order of execution."""


class Task(TrainingTask, EvaluationTask, PruningTask, Protocol):
    """Everything that the stages ask of a family."""
