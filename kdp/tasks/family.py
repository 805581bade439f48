"""What most families have in common; the rest of `kdp.tasks.base.Task` is each one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from kdp.config import Config, SamplesConfig
from kdp.errors import KdpError
from kdp.tasks.base import Batch
from kdp.types import Arch


def check_embedded(classes: Sequence[str], own: Sequence[str], kinds: str) -> None:
    """Make sure that a network's classes are those of the samples that kdp brings along.

    Raises:
        KdpError: they are not; names the other `kinds` of samples.
    """
    if tuple(classes) != tuple(own):
        raise KdpError(
            f"the samples of the kind 'embedded' are of the classes {', '.join(own)} in this "
            f"order, and the network's are {', '.join(classes)}; give samples of the kind {kinds}"
        )


class Family(ABC):
    """A family whose samples hold `image`, and whose network reads inputs of one size.

    Args:
        arch: name and arguments of the network.
        config: the whole configuration.
    """

    dynamic_axes: tuple[int, ...] = (0,)
    output_splits: tuple[int, ...] = ()
    reads: str = "as in training"
    gives: str = "as in training"

    def __init__(self, arch: Arch, config: Config) -> None:
        self.arch, self.config = arch, config

    @property
    @abstractmethod
    def native_size(self) -> tuple[int, int]:
        """(height, width) of what the network reads, where `measure` does not say."""

    @abstractmethod
    def load(self, section: SamplesConfig, validation: bool) -> list[Any]:
        """The samples that a section of the configuration asks for."""

    @cached_property
    def training_samples(self) -> list[Any]:
        """What there is to train on, once."""
        return self.load(self.config.data, False)

    @cached_property
    def evaluation_sets(self) -> Mapping[str, Any]:
        """The samples to judge by, by set."""
        return {name: self.load(one, True) for name, one in self.config.evaluation.items()}

    @abstractmethod
    def samples(self, length: int, seed: int, augment: bool) -> Dataset[Batch]:
        """Training samples numbered 0..length-1."""

    def training_data(self, length: int) -> Dataset[Batch]:
        return self.samples(length, self.config.seed, self.config.data.augment)

    def calibration_data(self) -> Batch:
        """The first samples of a shuffled epoch, as they are."""
        count = self.config.prune.calibration.patches
        data = self.samples(count, self.config.seed + 1, augment=False)
        return self.prepare(default_collate([data[i] for i in range(count)]), augment=False)

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        return batch

    def confidence_map(self, output: Tensor) -> Tensor:
        raise KdpError(f"{self.arch.name} has no scores at positions to weight a loss by")

    def inputs(self, batch: Batch) -> Tensor:
        return batch["image"]

    def check_data(self) -> dict[str, int]:
        """How many samples there are; what is corrupt is named and left out."""
        return {"training": len(self.training_samples)} | {
            name: len(them) for name, them in self.evaluation_sets.items()
        }

    def predictions(self, model: nn.Module) -> list[dict[str, str | int | float]]:
        raise KdpError(f"{self.arch.name} has no table of predictions")

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """None."""
        yield from ()

    @property
    def input_size(self) -> tuple[int, int]:
        return self.config.measure.input_size or self.native_size

    @property
    def latency_size(self) -> tuple[int, int]:
        return self.config.measure.latency_size or self.native_size
