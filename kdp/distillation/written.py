"""What teachers say of the training samples, computed once and read from files.

Sample number i is the same whoever asks for it, augmentation included, so that targets are kept
by number: file k of a folder holds those of samples k*n to (k+1)*n - 1.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from kdp.artifacts import Artifact, load, save
from kdp.errors import KdpError

Sample = dict[str, Tensor]


def file_of(folder: Path, number: int) -> Path:
    """The file with this number."""
    return folder / f"{number:06d}.pth"


def write(path: Path, key: dict[str, Any], record: dict[str, Any], targets: Sample) -> None:
    """Keep the targets of consecutive samples, (n, ...) each.

    Raises:
        KdpError: the file cannot be written.
    """
    save(path, Artifact({}, record=record, extra={"targets": targets, "key": key}))


def holds(path: Path, key: dict[str, Any]) -> bool:
    """Whether a file is there and was written for the same teachers, taps and samples."""
    return path.exists() and load(path).extra.get("key") == key


class WrittenDataset(Dataset[Sample]):
    """A data set whose samples carry their teachers' targets too.

    Args:
        samples: the data set, sample by number.
        folder: of the files.
        key: what they must have been written for.

    Raises:
        KdpError: there are no files, or those of other teachers, taps or samples, or too few.
    """

    def __init__(self, samples: Dataset[Sample], folder: Path, key: dict[str, Any]) -> None:
        self.samples, self.folder = samples, folder
        self.size = _size(folder, key)
        last = (len(self) - 1) // self.size
        if not file_of(folder, last).exists():
            raise KdpError(f"{folder} has too few targets for {len(self)} samples; run `kdp teach`")

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Sample:
        targets = _targets(file_of(self.folder, number // self.size))
        mine = {name: tensor[number % self.size] for name, tensor in targets.items()}
        return {**self.samples[number], **mine}


def first_target(folder: Path, key: dict[str, Any]) -> Sample:
    """The targets of sample 0."""
    _size(folder, key)
    return {name: tensor[0] for name, tensor in _targets(file_of(folder, 0)).items()}


def _size(folder: Path, key: dict[str, Any]) -> int:
    """Samples in a file."""
    first = file_of(folder, 0)
    if not first.exists():
        raise KdpError(f"{folder} holds no targets; run `kdp teach` first")
    if not holds(first, key):
        raise KdpError(
            f"{folder} holds what other teachers, taps or samples gave; run `kdp teach` again"
        )
    return len(next(iter(_targets(first).values())))


@lru_cache(maxsize=2)
def _targets(path: Path) -> Sample:
    return dict(load(path).extra["targets"])
