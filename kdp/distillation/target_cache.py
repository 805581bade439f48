"""What teachers say of the training samples, computed once and read from files.

Sample number i is the same whoever asks for it, augmentation included, so that targets are kept
by number: file k of a folder holds those of samples k*n to (k+1)*n - 1. An index, written when all
files are there, says what they hold; without it nothing is read.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from kdp.artifacts import Artifact, load, save
from kdp.errors import KdpError
from kdp.types import Provenance

Sample = dict[str, Tensor]
Key = dict[str, Any]


def target_path(folder: Path, number: int) -> Path:
    """The file with this number."""
    return folder / f"{number:06d}.pth"


def index_path(folder: Path) -> Path:
    """The file that says what the others hold."""
    return folder / "index.pth"


def write_targets(path: Path, key: Key, targets: Sample) -> None:
    """Keep the targets of consecutive samples, (n, ...) each.

    Raises:
        KdpError: the file cannot be written.
    """
    save(path, Artifact({}, extra={"targets": targets, "key": key}))


def is_cached(path: Path, key: Key, count: int) -> bool:
    """Whether a file has the targets of `count` samples, of the same teachers, taps and data."""
    if not path.exists():
        return False
    extra = load(path).extra
    return extra.get("key") == key and len(next(iter(extra["targets"].values()))) == count


def write_index(folder: Path, key: Key, record: Provenance, samples: int, size: int) -> None:
    """Say that the files hold `samples` targets, `size` in each."""
    extra = {"key": key, "samples": samples, "size": size}
    save(index_path(folder), Artifact({}, record=record, extra=extra))


class CachedTargetDataset(Dataset[Sample]):
    """A data set whose samples carry their teachers' targets too.

    Args:
        samples: the data set, sample by number.
        folder: of the files.
        key: what they must have been written for.

    Raises:
        KdpError: there are no files, or those of other teachers, taps or samples, or too few.
    """

    def __init__(self, samples: Dataset[Sample], folder: Path, key: Key) -> None:
        self.samples, self.folder = samples, folder
        index = read_index(folder, key)
        self.size = int(index["size"])
        if index["samples"] < len(self):
            raise KdpError(
                f"{folder} has targets of {index['samples']} samples, {len(self)} are needed; "
                "run `kdp teach` again"
            )

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Sample:
        targets = _targets(target_path(self.folder, number // self.size))
        mine = {name: tensor[number % self.size] for name, tensor in targets.items()}
        return {**self.samples[number], **mine}


def first_target(folder: Path, key: Key) -> Sample:
    """The targets of sample 0.

    Raises:
        KdpError: see `CachedTargetDataset`.
    """
    read_index(folder, key)
    return {name: tensor[0] for name, tensor in _targets(target_path(folder, 0)).items()}


def read_index(folder: Path, key: Key) -> dict[str, Any]:
    """The index, `samples` and `size`.

    Raises:
        KdpError: there is none, or it is of other teachers, taps or samples.
    """
    if not index_path(folder).exists():
        raise KdpError(f"{folder} holds no (or not all) targets; run `kdp teach` first")
    extra = load(index_path(folder)).extra
    changed = sorted(name for name, value in key.items() if extra["key"].get(name) != value)
    if changed:
        raise KdpError(
            f"{folder} was written for other {', '.join(changed)}; run `kdp teach` again"
        )
    return extra


def _targets(path: Path) -> Sample:
    if not path.exists():
        raise KdpError(f"{path} does not exist; run `kdp teach` again")
    return _targets_at(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _targets_at(path: Path, written: int) -> Sample:
    return dict(load(path).extra["targets"])
