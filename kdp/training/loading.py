"""Loading batches, in the process that trains or in workers beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from kdp.errors import KdpError, first_line
from kdp.training.shutdown import ignore_signals


@dataclass(frozen=True)
class LoadingError:
    """In place of a sample, or of a batch, that could not be loaded."""

    message: str


class Guarded(Dataset[Any]):
    """A data set that returns errors of the input.

    An error that a worker raises arrives with the worker's traceback as its message.
    """

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Any:
        try:
            return self.samples[number]
        except KdpError as error:
            return LoadingError(str(error))
        except OSError as error:
            return LoadingError(f"cannot read a training sample: {error}")


def batch_loader(samples: Dataset[Any], batch_size: int, workers: int) -> DataLoader[Any]:
    """Batches of consecutive samples; those with an error are a `LoadingError`."""
    return DataLoader(
        Guarded(samples),
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=_collated,
        worker_init_fn=ignore_signals,
    )


@contextmanager
def worker_ends_named() -> Iterator[None]:
    """While a loader is in use: PyTorch notices the end of a worker wherever the training is.

    Raises:
        KdpError: a worker has ended, such as for lack of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = first_line(error)
        raise KdpError(f"a process that loads data ended: {reason}; lower data.workers") from error


def _collated(samples: Sequence[Any]) -> Any:
    errors = (sample for sample in samples if isinstance(sample, LoadingError))
    return next(errors, None) or default_collate(list(samples))
