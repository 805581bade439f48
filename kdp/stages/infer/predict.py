"""What `kdp infer` does with every file, whatever becomes of the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import nn

from kdp.errors import KdpError
from kdp.progress import Advance
from kdp.tasks.predictor import FilePrediction
from kdp.training.shutdown import Shutdown, StopRequested, stop_between_layers


@dataclass(frozen=True)
class Predicted:
    """A file and what the network says of it.

    Attributes:
        source: the file.
        prediction: as the family's predictor gives it.
        ms: that it took, in milliseconds.
    """

    source: Path
    prediction: Any
    ms: float


@dataclass(frozen=True)
class Run:
    """A network that runs on one file after another.

    Attributes:
        model: on its device.
        predict: a sample -> its prediction.
        passes: how often the network runs for a sample, at most.
        shutdown: is checked before every layer of the network.
    """

    model: nn.Module
    predict: Callable[[Any], Any]
    passes: Callable[[Any], int]
    shutdown: Shutdown

    def over(
        self,
        sources: Sequence[Path],
        read: Callable[[Path], Any],
        unreadable: list[str],
        advance: Advance,
    ) -> Iterator[Predicted]:
        """Predict every file; one that cannot be read does not stop the others.

        Args:
            sources: the files.
            read: a file -> the sample to predict.
            unreadable: receives why a file could not be read.
            advance: moves the progress bar, by one for every file.

        Raises:
            StopRequested: the work is to stop.
        """
        for source in sources:
            advance(0, note=source.name)
            try:
                sample = read(source)
            except KdpError as error:
                unreadable.append(str(error))
                advance(1)
                continue
            with self._passes_counted(sample, advance):
                prediction, ms = timed(self.predict, sample)
            yield Predicted(source, prediction, ms)

    @contextmanager
    def _passes_counted(self, sample: Any, advance: Advance) -> Iterator[None]:
        """Move the bar by one file in all, a part with every pass of the network.

        A request to stop that comes after the last layer still delivers the prediction.
        """
        # Fractions add up to exactly one; floats would leave the bar short of its end.
        left, passes = Fraction(1), self.passes(sample)

        def after_pass(*_: object) -> None:
            nonlocal left
            step = min(left, Fraction(1, passes))
            left -= step
            advance(step)

        if self.shutdown.stop_requested:
            raise StopRequested
        with stop_between_layers(self.model, lambda: self.shutdown.stop_requested):
            hook = self.model.register_forward_hook(after_pass)
            try:
                yield
            finally:
                hook.remove()
        if left:  # nothing to run the network on, as in an image where no region was detected
            advance(left)


def timed(predict: Callable[[Any], Any], sample: Any) -> tuple[Any, float]:
    """A prediction, and the milliseconds it took."""
    start = time.perf_counter()
    prediction = predict(sample)
    return prediction, 1000 * (time.perf_counter() - start)


def times_in_ms(prediction: FilePrediction, ms: float) -> dict[str, Any]:
    """The time of a prediction and of its parts, for a line of JSON."""
    parts = {f"{part}_ms": round(value, 2) for part, value in prediction.part_ms.items()}
    return {"ms": round(ms, 2), **parts}


def in_words(result: Mapping[str, Any]) -> str:
    """A prediction as text, without coordinates: "objects: cat 0.9957, dog 0.8".

    Args:
        result: as `FilePrediction.plain` gives it.
    """
    return "; ".join(f"{key}: {_words(value)}" for key, value in result.items())


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(_words(v) for key, v in value.items() if key != "box")
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return str(value)
