"""Which files samples are read from, and whether these have changed or occur twice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    theirs = {path for sample in others for path in files_of(sample)}
    mine = {path for sample in samples for path in files_of(sample)}

    def on_both_sides(paths: Sequence[Path]) -> bool:
        return any(path in mine for path in paths) and any(path in theirs for path in paths)

    groups = equal_files([*mine - theirs, *theirs], on_both_sides)
    shared = theirs.union(*groups)
    return [sample for sample in samples if not shared.intersection(files_of(sample))]


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
    mine = {path: sample.name for sample in training for path in files_of(sample)}
    for key, samples in evaluation.items():
        theirs = {path: sample.name for sample in samples for path in files_of(sample)}
        if pairs := _shared(mine, theirs):
            first, other = pairs[0]
            name = theirs[other] + ("" if first == other else f" (there {mine[first]})")
            raise KdpError(
                f"{len(pairs)} files of the evaluation set {key!r} are in the training data too, "
                f"such as {name}: leave them out of one of them"
            )


def _shared(mine: Mapping[Path, str], theirs: Mapping[Path, str]) -> list[tuple[Path, Path]]:
    """Files of the first collection and of the second with the same name or content."""
    if same := [(path, path) for path in theirs if path in mine]:
        return same

    def on_both_sides(paths: Sequence[Path]) -> bool:
        return any(path in mine for path in paths) and any(path in theirs for path in paths)

    return [
        (next(path for path in group if path in mine), other)
        for group in equal_files([*mine, *theirs], on_both_sides)
        for other in group
        if other in theirs
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
