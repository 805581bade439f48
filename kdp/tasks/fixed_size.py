"""What most families share; the rest of `kdp.tasks.base.Task` is up to each of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from kdp.config import Config, SamplesConfig
from kdp.errors import KdpError
from kdp.tasks.base import Batch, Prediction
from kdp.tasks.evaluation import SetwiseEvaluation
from kdp.types import Arch


def check_embedded(classes: Sequence[str], embedded: Sequence[str], kinds: str) -> None:
    """Make sure that a network's classes are those of the samples that kdp carries.

    Args:
        classes: of the network.
        embedded: classes of the samples.
        kinds: of samples that have other classes, for the message.

    Raises:
        KdpError: they differ.
    """
    if tuple(classes) != tuple(embedded):
        raise KdpError(
            f"samples of kind 'embedded' have the classes {', '.join(embedded)} in this order, the "
            f"network has {', '.join(classes)}; use samples of kind {kinds}"
        )


def class_columns(classes: Sequence[str], label: int, probabilities: Tensor) -> Prediction:
    """Columns of a table of predictions: the label, the predicted class, and all probabilities.

    Args:
        classes: names, in the order of the outputs.
        label: index of the true class.
        probabilities: (classes,).
    """
    by_class = zip(classes, probabilities.tolist(), strict=True)
    return {
        "label": classes[label],
        "predicted": classes[int(probabilities.argmax())],
        **{f"p_{name}": f"{probability:.6f}" for name, probability in by_class},
    }


class FixedSizeTask(SetwiseEvaluation):
    """A task whose samples hold `image` and whose network reads inputs of one size.

    Args:
        arch: name and arguments of the network.
        config: the whole configuration.
    """

    classes: tuple[str, ...] = ()
    headline_metrics: tuple[str, ...] = ()

    def __init__(self, arch: Arch, config: Config) -> None:
        self.arch, self.config = arch, config

    @property
    @abstractmethod
    def native_size(self) -> tuple[int, int]:
        """(height, width) of the network's input, unless `measure` sets another."""

    @abstractmethod
    def load(self, section: SamplesConfig, validation: bool) -> list[Any]:
        """The samples that a section of the configuration describes."""

    @abstractmethod
    def samples(self, length: int, seed: int, augment: bool) -> Dataset[Batch]:
        """Training samples numbered 0..length-1."""

    @cached_property
    def training_samples(self) -> list[Any]:
        """The samples to train on, read once."""
        return self.load(self.config.data, False)

    @cached_property
    def evaluation_sets(self) -> Mapping[str, Any]:
        """The samples to evaluate on, by set."""
        sections = self.config.evaluation
        return {name: self.load(section, True) for name, section in sections.items()}

    def training_data(self, length: int) -> Dataset[Batch]:
        return self.samples(length, self.config.seed, self.config.data.augment)

    def calibration_data(self, count: int | None = None) -> Batch:
        """The first samples of a shuffled epoch, without augmentation.

        The seed differs from that of training, whose first batches would otherwise decide what is
        pruned.
        """
        count = count or self.config.prune.calibration.patches
        data = self.samples(count, self.config.seed + 1, augment=False)
        return self.prepare(default_collate([data[i] for i in range(count)]), augment=False)

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        return batch

    def sample_metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """None, unless a family overrides this."""
        return {}

    def confidence_map(self, output: Tensor) -> Tensor:
        raise KdpError(f"{self.arch.name} has no confidence by position to weight a loss with")

    def inputs(self, batch: Batch) -> Tensor:
        return batch["image"]

    @property
    def sample_counts(self) -> dict[str, int]:
        counts = {name: len(samples) for name, samples in self.evaluation_sets.items()}
        return {"training": len(self.training_samples), **counts}

    def check_data(self) -> dict[str, int]:
        """How many samples there are; corrupt ones are reported and left out."""
        return self.sample_counts

    def predict_set(self, model: nn.Module, samples: Any) -> Iterable[Prediction]:
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
