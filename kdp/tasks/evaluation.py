"""Evaluating networks set by set: what the families share of `kdp.tasks.base.EvaluationTask`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from torch import nn

from kdp.config import Config
from kdp.finite import outputs_finite
from kdp.progress import Advance
from kdp.tasks.base import Metrics, Prediction


def no_progress(count: int = 1) -> None:
    """Report nothing."""


@contextmanager
def _outputs_finite(models: Sequence[nn.Module], name: str) -> Iterator[None]:
    with ExitStack() as checks:
        for model in models:
            checks.enter_context(outputs_finite(model, f"evaluation on {name}"))
        yield


class SetwiseEvaluation(ABC):
    """A task that evaluates one set of samples after another.

    An output that is not finite is refused (`KdpError`): metrics of it look like numbers.

    Attributes:
        config: the whole configuration.
    """

    config: Config
    task_reduction: Literal["mean", "sum"] = "mean"

    @property
    @abstractmethod
    def evaluation_sets(self) -> Mapping[str, Any]:
        """The samples to evaluate on, by set."""

    @abstractmethod
    def evaluate_set(
        self, models: Sequence[nn.Module], samples: Any, advance: Advance
    ) -> list[Metrics]:
        """The metrics of every network on one set.

        Reading and decoding a sample takes longer than a small network's forward pass, so all
        networks are to run on a sample before the next one is read.

        Args:
            models: in eval mode, each on its own device.
            samples: of the set.
            advance: called with the number of samples that all networks have finished.
        """

    def validate_set(self, model: nn.Module, samples: Any) -> Metrics:
        """`evaluate_set` of one network, with `loss` where a family overrides this.

        Args:
            model: in eval mode.
            samples: of the set.
        """
        return self.evaluate_set([model], samples, no_progress)[0]

    @abstractmethod
    def predict_set(self, model: nn.Module, samples: Any) -> Iterable[Prediction]:
        """Rows of the table of predictions for one set, without the column `set`.

        Args:
            model: in eval mode.
            samples: of the set.
        """

    def evaluate(self, model: nn.Module) -> dict[str, Metrics]:
        return self.evaluate_all([model])[0]

    def evaluate_all(
        self, models: Sequence[nn.Module], advance: Advance = no_progress
    ) -> list[dict[str, Metrics]]:
        for model in models:
            model.eval()
        results: list[dict[str, Metrics]] = [{} for _ in models]
        for name, samples in self.evaluation_sets.items():
            with _outputs_finite(models, name):
                all_metrics = self.evaluate_set(models, samples, advance)
            for result, metrics in zip(results, all_metrics, strict=True):
                result[name] = metrics
        return results

    def validate(self, model: nn.Module) -> dict[str, Metrics]:
        return self._validate_sets(model, at_end=False)

    def evaluate_at_end(self, model: nn.Module) -> dict[str, Metrics]:
        return self._validate_sets(model, at_end=True)

    def _validate_sets(self, model: nn.Module, at_end: bool) -> dict[str, Metrics]:
        model.eval()
        results = {}
        for name, samples in self.evaluation_sets.items():
            if self.config.evaluation[name].at_end == at_end:
                with _outputs_finite([model], name):
                    results[name] = self.validate_set(model, samples)
        return results

    def predictions(self, model: nn.Module) -> list[Prediction]:
        model.eval()
        rows = []
        for name, samples in self.evaluation_sets.items():
            with _outputs_finite([model], name):
                rows += [{"set": name, **row} for row in self.predict_set(model, samples)]
        return rows
