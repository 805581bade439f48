"""Teachers' targets for all training samples, computed once and read from files.

A sample is determined by its number and the seed, augmentation included, so its targets can be
stored by number: file k of a folder holds those of samples k * size to (k + 1) * size - 1. An
index, written last, describes them. Without it nothing is read, so an interrupted
`kdp cache-targets` leaves no half-valid cache.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from kdp.artifacts import Artifact, load, save
from kdp.contents import Content, Count, Settings, check_types
from kdp.errors import KdpError
from kdp.tensor_contents import Samples
from kdp.types import Provenance

Sample = dict[str, Tensor]
Key = dict[str, Any]
"""Everything that the targets depend on: teachers, taps, data, seed."""
RENAMED_KEYS = {"pictures": "inputs"}
"""Names in the keys of earlier versions -> their names today."""


class TargetsContent(Content):
    """A file of targets."""

    key: Settings
    targets: Annotated[dict[str, Samples], Field(min_length=1)]


class IndexContent(Content):
    """The index of a cache."""

    key: Settings
    samples: Count
    size: Annotated[int, Field(ge=1)]


def target_path(folder: Path, number: int) -> Path:
    """The file of targets with this number."""
    return folder / f"{number:06d}.pth"


def index_path(folder: Path) -> Path:
    """The index of a folder of targets."""
    return folder / "index.pth"


def write_targets(path: Path, key: Key, targets: Sample) -> None:
    """Write the targets of consecutive samples.

    Args:
        path: see `target_path`.
        key: everything that the targets depend on.
        targets: (n, ...) each, n consecutive samples.

    Raises:
        KdpError: the file cannot be written.
    """
    save(path, Artifact({}, extra={"targets": targets, "key": key}))


def is_cached(path: Path, key: Key, count: int) -> bool:
    """True if a file holds the targets of `count` samples for this key."""
    if not path.exists():
        return False
    extra = load(path).extra
    check_types(path, TargetsContent, extra)
    return _key_of(extra) == key and len(next(iter(extra["targets"].values()))) == count


def write_index(folder: Path, key: Key, record: Provenance, samples: int, size: int) -> None:
    """Declare the cache complete.

    Args:
        folder: of the files.
        key: everything that the targets depend on.
        record: provenance.
        samples: number of all samples.
        size: samples per file.
    """
    extra = {"key": key, "samples": samples, "size": size}
    save(index_path(folder), Artifact({}, record=record, extra=extra))


class CachedTargetDataset(Dataset[Sample]):
    """A data set that adds the cached targets to each sample.

    Args:
        samples: the data set, sample by number.
        folder: of the cached targets.
        key: everything that the targets must agree with.

    Raises:
        KdpError: there are no targets, they were computed for another key, or for fewer samples.
    """

    def __init__(self, samples: Dataset[Sample], folder: Path, key: Key) -> None:
        self.samples, self.folder = samples, folder
        index = read_index(folder, key)
        self.size = int(index["size"])
        if index["samples"] < len(self):
            raise KdpError(
                f"{folder} has targets of {index['samples']} samples, {len(self)} are needed; "
                "run `kdp cache-targets` again"
            )

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Sample:
        targets = _read_targets(target_path(self.folder, number // self.size))
        of_sample = {name: tensor[number % self.size] for name, tensor in targets.items()}
        return {**self.samples[number], **of_sample}


def first_target(folder: Path, key: Key) -> Sample:
    """The targets of sample 0.

    Raises:
        KdpError: see `CachedTargetDataset`.
    """
    read_index(folder, key)
    return {name: tensor[0] for name, tensor in _read_targets(target_path(folder, 0)).items()}


def read_index(folder: Path, key: Key) -> dict[str, Any]:
    """The index of a complete cache: a dict with `key`, `samples` and `size`.

    Raises:
        KdpError: there is none, or the targets were computed for another key.
    """
    if not index_path(folder).exists():
        raise KdpError(f"{folder} holds no complete set of targets; run `kdp cache-targets` first")
    extra = load(index_path(folder)).extra
    check_types(index_path(folder), IndexContent, extra)
    stored = _key_of(extra)
    changed = sorted(name for name, value in key.items() if stored.get(name) != value)
    if changed:
        raise KdpError(
            f"{folder} was computed for other {', '.join(changed)}; run `kdp cache-targets` again"
        )
    return extra


def _key_of(extra: dict[str, Any]) -> Key:
    """The key in a file, with today's names."""
    return {RENAMED_KEYS.get(name, name): value for name, value in extra.get("key", {}).items()}


def _read_targets(path: Path) -> Sample:
    if not path.exists():
        raise KdpError(f"{path} does not exist; run `kdp cache-targets` again")
    return _read_cached(path, path.stat().st_mtime_ns)


# Samples are read in order: a batch touches one file, or two at a boundary. The time of writing is
# part of the cache's key, so a file that was written again is read again.
@lru_cache(maxsize=2)
def _read_cached(path: Path, modified: int) -> Sample:
    extra = load(path).extra
    check_types(path, TargetsContent, extra)
    return dict(extra["targets"])
