"""What a model family tells the stages about itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Protocol

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdp.config import Config
from kdp.pruning.groups import Group
from kdp.types import Arch

Batch = dict[str, Tensor]
Metrics = dict[str, float]


class Task(Protocol):
    """One family: its data, loss and metrics, what may be pruned and where features are tapped.

    A task is made for one network (`arch`, as an artifact holds it) and one configuration.
    """

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        """A training batch with what is made of it on its own device.

        Args:
            batch: collated samples of `training_data`.
            augment: change it at random where the configuration says so, by torch's generator.
        """

    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads, out of a prepared batch."""

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss against the ground truth, a scalar."""

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """How far each sample's output is from a reference output: (B,)."""

    def confidence_map(self, output: Tensor) -> Tensor:
        """How sure an output is at each position of the maps that it is made of: (B, positions).

        The largest map comes first.

        Raises:
            KdpError: this family's outputs do not say.
        """

    def training_data(self, length: int) -> Dataset[Batch]:
        """Samples numbered 0..length-1, each fully determined by its number and the seed."""

    def check_data(self) -> dict[str, int]:
        """Read what there is to read, and count it by where it is used.

        Raises:
            KdpError: something is missing or corrupt, by name.
        """

    def calibration_data(self) -> Batch:
        """The batch importance is measured on."""

    def evaluate(self, model: nn.Module) -> dict[str, Metrics]:
        """Quality on every evaluation set; the model is left in eval mode."""

    def predictions(self, model: nn.Module) -> list[dict[str, str | int | float]]:
        """What the network makes of each evaluation sample: a row each, the same every time.

        Numbers that are measured are text with a fixed number of digits.
        """

    @property
    def evaluation_sets(self) -> Mapping[str, Sized]:
        """The samples that `evaluate` judges by, by set."""

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """What the networks make of each evaluation sample, side by side.

        Yields a name fit for a file and an (H, W, 3) uint8 picture; the networks are in eval mode.
        """

    @property
    def primary_metric(self) -> str:
        """The metric that picks the best checkpoint; higher is better."""

    @property
    def protocol(self) -> str:
        """How quality is measured, in words."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input that MACs are counted for."""

    @property
    def latency_size(self) -> tuple[int, int]:
        """(height, width) of the input that is timed."""

    def example(self, size: Sequence[int]) -> Tensor:
        """An input of one sample with the given (height, width), on the CPU."""

    @property
    def reads(self) -> str:
        """What an exported network is to be given, in words."""

    @property
    def gives(self) -> str:
        """What an exported network answers with, in words."""

    @property
    def output_splits(self) -> tuple[int, ...]:
        """Lengths along axis 1 of what has a scale of its own in an exported output; () for one."""

    @property
    def dynamic_axes(self) -> tuple[int, ...]:
        """Axes of the input (batch 0, height 2, width 3) that any length fits once exported."""

    def groups(self, model: nn.Module) -> list[Group]:
        """What may be pruned, in the order of execution."""

    def taps(self, model: nn.Module) -> list[str]:
        """The modules whose outputs are the features to compare."""


class TaskFactory(Protocol):
    """Makes the task of a family."""

    def __call__(self, arch: Arch, config: Config) -> Task: ...
