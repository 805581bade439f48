"""Metrics of the training batches, from the outputs that the loss is computed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Batch = dict[str, Tensor]
SampleMetrics = Callable[[Tensor, Batch], Mapping[str, Tensor]]
"""(output, batch) -> values of every sample by metric, (B,) each."""
Loss = Callable[[Tensor, Batch], Tensor]


class RunningMetrics:
    """Means over the training samples since the last reset.

    Args:
        sample_metrics: measures a batch; None: there are no metrics.
    """

    def __init__(self, sample_metrics: SampleMetrics | None = None) -> None:
        self._sample_metrics = sample_metrics
        self._totals: dict[str, tuple[Tensor, int]] = {}

    def observe(self, loss: Loss) -> Loss:
        """The same loss; every batch it is computed on counts."""

        def call(output: Tensor, batch: Batch) -> Tensor:
            self.add(output, batch)
            return loss(output, batch)

        return call if self._sample_metrics else loss

    @torch.no_grad()
    def add(self, output: Tensor, batch: Batch) -> None:
        """Count a batch. Sums stay on its device: reading them would wait for the device."""
        if self._sample_metrics is None:
            return
        for name, values in self._sample_metrics(output.detach(), batch).items():
            total, count = self._totals.get(name, (torch.zeros(()), 0))
            self._totals[name] = values.float().sum() + total, count + len(values)

    def sums(self) -> dict[str, Tensor]:
        """Sum and number of samples of each metric, (2,), to be added up over processes."""
        return {
            name: torch.stack([total, torch.full_like(total, count)])
            for name, (total, count) in self._totals.items()
        }

    def reset(self) -> None:
        """Forget the samples so far."""
        self._totals = {}

    def load(self, sums: Mapping[str, Tensor]) -> None:
        """Continue from `sums`."""
        self._totals = {name: (total, int(count)) for name, (total, count) in sums.items()}


def means(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The means that sums stand for."""
    return {name: float(total / count) for name, (total, count) in sums.items()}
