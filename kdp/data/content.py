"""Which files samples are read from, and whether these have changed or occur twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kdp.errors import KdpError, join_names
from kdp.files import sha256
from kdp.log import log_once

WHOLE_BYTES = 256 * 1024**2
"""Files of at most so many bytes together are hashed whole, in less than a second."""


class AnnotatedFiles(Protocol):
    """A sample that is read from files, with what is said of them elsewhere, such as a label."""

    @property
    def name(self) -> str: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    @property
    def annotation(self) -> str: ...


S = TypeVar("S", bound=AnnotatedFiles)


def files_of(sample: Any) -> tuple[Path, ...]:
    """The files that a sample is read from; none where it is generated."""
    return getattr(sample, "files", ())


def fingerprint(samples: Sequence[Any], times: bool = True) -> str:
    """SHA-256 of what samples are read from: names, order, annotations and files.

    Small data sets count by the content of their files. Large ones would take minutes to hash, so
    that the size and the time of the last change stand for the content of each file.

    Args:
        samples: may have `name`, `files`, and `annotation`, what other files say of them.
        times: False to leave the times of large data sets out, which copying may change.
    """
    files = dict.fromkeys(path for sample in samples for path in files_of(sample))
    states = _states(files, times)
    digest = hashlib.sha256()
    for sample in samples:
        own = [f"{path.name} {states[path]}" for path in files_of(sample)]
        texts = [getattr(sample, key, "") for key in ("name", "annotation")]
        digest.update(repr([*texts, *own]).encode())
    return digest.hexdigest()


def _states(files: Iterable[Path], times: bool) -> dict[Path, str]:
    """What stands for the content of each file."""
    stats = {path: path.stat() for path in files if path.is_file()}
    if sum(stat.st_size for stat in stats.values()) <= WHOLE_BYTES:
        states = {path: sha256(path) for path in stats}
    else:
        states = {
            path: f"{stat.st_size} {stat.st_mtime_ns if times else ''}"
            for path, stat in stats.items()
        }
    return {path: states.get(path, "missing") for path in files}


def equal_files(
    files: Iterable[Path], matters: Callable[[Sequence[Path]], bool]
) -> list[list[Path]]:
    """Groups of files with equal content.

    Sizes are compared first, then a block in the middle: the recordings of a data set may all have
    one size. Only what is still equal is read whole.

    Args:
        files: to compare; those that cannot be read are equal to none.
        matters: whether a group is of interest; it is asked again whenever one got smaller.
    """
    groups = [list(dict.fromkeys(files))]
    for looks in (_size, _middle, sha256):
        parts = [part for group in groups for part in _split(group, looks)]
        groups = [part for part in parts if len(part) > 1 and matters(part)]
    return groups


Sample = TypeVar("Sample")


def without_content_of(samples: Sequence[Sample], others: Iterable[Any]) -> list[Sample]:
    """The samples that share no file with others, by path or by content.

    Args:
        samples: may have `files`.
        others: the same.
    """
    excluded = {path for sample in others for path in files_of(sample)}
    remaining = {path for sample in samples for path in files_of(sample)} - excluded
    excluded.update(*_groups_across(remaining, excluded))
    return [sample for sample in samples if not excluded.intersection(files_of(sample))]


def _groups_across(first: Collection[Path], second: Collection[Path]) -> list[list[Path]]:
    """Groups of files with equal content that each have files of both collections."""

    def in_both(paths: Sequence[Path]) -> bool:
        return any(path in first for path in paths) and any(path in second for path in paths)

    return equal_files([*first, *second], in_both)


def _split(files: Iterable[Path], looks: Callable[[Path], str]) -> list[list[Path]]:
    parts = defaultdict(list)
    for path in files:
        try:
            parts[looks(path)].append(path)
        except (OSError, KdpError):
            continue
    return list(parts.values())


def _size(path: Path) -> str:
    return str(path.stat().st_size)


def _middle(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return hashlib.sha256(file.read(4096)).hexdigest()


def check_disjoint(training: Iterable[Any], evaluation: Mapping[str, Iterable[Any]]) -> None:
    """Refuse evaluation sets that share files with the training samples, by name or by content.

    Quality on samples that a network was trained on says nothing about others.

    Args:
        training: samples, which may have `name` and `files`.
        evaluation: samples by set.

    Raises:
        KdpError: a set shares a file; the message names it.
    """
    training_names = _names_by_file(training)
    for key, samples in evaluation.items():
        names = _names_by_file(samples)
        if pairs := _shared(training_names.keys(), names.keys()):
            trained, evaluated = pairs[0]
            alias = "" if trained == evaluated else f" (there {training_names[trained]})"
            raise KdpError(
                f"{len(pairs)} files of the evaluation set {key!r} are in the training data too, "
                f"such as {names[evaluated]}{alias}: leave them out of one of them"
            )


def _names_by_file(samples: Iterable[Any]) -> dict[Path, str]:
    return {path: sample.name for sample in samples for path in files_of(sample)}


def _shared(training: Collection[Path], evaluation: Collection[Path]) -> list[tuple[Path, Path]]:
    """Files of both collections with the same name or content: one of each."""
    if same := [(path, path) for path in evaluation if path in training]:
        return same
    return [
        (next(path for path in group if path in training), other)
        for group in _groups_across(training, evaluation)
        for other in group
        if other in evaluation
    ]


def without_contradictions(samples: list[S], dataset: str) -> list[S]:
    """Leave out samples whose files have the content of another one with another annotation.

    Nobody can tell which annotation is right; a line names them.

    Args:
        samples: with `name`, `files` and `annotation`.
        dataset: how the line calls them.
    """
    annotations = {path: sample.annotation for sample in samples for path in sample.files}

    def differ(paths: Sequence[Path]) -> bool:
        return len({annotations[path] for path in paths}) > 1

    wrong = {path for group in equal_files(annotations, differ) for path in group}
    names = [sample.name for sample in samples if wrong.intersection(sample.files)]
    if names:
        listing = join_names(names, 5)
        log_once(f"{dataset}: one content with several labels, {len(names)} left out: {listing}")
    return [sample for sample in samples if not wrong.intersection(sample.files)]
