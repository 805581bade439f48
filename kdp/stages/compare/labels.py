"""Short, unique names for the files of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby, takewhile
from pathlib import Path

from kdp.files import real_path


def short_labels(paths: Sequence[Path]) -> list[str]:
    """One label per file: its stem without the words that all stems begin with.

    Stems stay whole where one of them is nothing but these words: it would lose a part of its name.

    Files whose labels would be equal are told apart by their suffix, then by their folder; the
    same file given twice is numbered.
    """
    labels = _unrepeated(_without_common_prefix([path.stem for path in paths]))
    labels = _extended(labels, [f"{a}{b.suffix}" for a, b in zip(labels, paths, strict=True)])
    folders = [real_path(path).parent.name for path in paths]
    labels = _extended(labels, [f"{a}/{b}" for a, b in zip(folders, labels, strict=True)])
    return _numbered(labels)


def _without_common_prefix(stems: Sequence[str]) -> list[str]:
    words = [stem.split("_") for stem in stems]
    columns = zip(*words, strict=False)
    common = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    whole = any(len(own) == common for own in words)
    return list(stems) if whole else ["_".join(own[common:]) for own in words]


def _unrepeated(labels: list[str]) -> list[str]:
    """`mask_pruned_pruned` as `mask_pruned`: a chain named "mask_pruned" adds the word again."""
    shorter = ["_".join(word for word, _ in groupby(label.split("_"))) for label in labels]
    return shorter if len(set(shorter)) == len(set(labels)) else labels


def _extended(labels: list[str], longer: list[str]) -> list[str]:
    """The longer names where the short ones are ambiguous and the longer ones are less so."""
    groups: dict[str, set[str]] = {}
    for label, name in zip(labels, longer, strict=True):
        groups.setdefault(label, set()).add(name)
    pairs = zip(labels, longer, strict=True)
    return [name if len(groups[label]) > 1 else label for label, name in pairs]


def _numbered(labels: list[str]) -> list[str]:
    total, count = Counter(labels), Counter[str]()
    numbered = []
    for label in labels:
        count[label] += 1
        first = total[label] == 1 or count[label] == 1
        numbered.append(label if first else f"{label}_{count[label]}")
    return numbered
