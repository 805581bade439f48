"""Dividing a data set into training, validation and test samples."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from kdp.errors import KdpError
from kdp.files import sha256

Part = Literal["train", "val", "test"]


class LabelledFile(Protocol):
    """A sample of a class that is read from one file."""

    @property
    def label(self) -> int: ...

    @property
    def files(self) -> tuple[Path, ...]: ...


S = TypeVar("S", bound=LabelledFile)


def content(sample: LabelledFile) -> str:
    """SHA-256 of a sample's file."""
    return sha256(sample.files[0])


@dataclass(frozen=True)
class Split:
    """How a data set is divided.

    Attributes:
        seed: another one gives other parts.
        val, test: shares of every class; the rest is for training.
    """

    seed: int
    val: float
    test: float

    def part(
        self, samples: Sequence[S], part: Part, group: Callable[[S], str] = content
    ) -> list[S]:
        """The samples of one part, in their order.

        Every class is divided on its own. The seed and the group decide where a sample belongs:
        names, order and machine do not matter, an added file moves only a few others (those at the
        borders), and a group is in one part as a whole.

        Args:
            samples: to divide.
            part: to return.
            group: sample -> what must not be in two parts; by default samples of equal content.

        Raises:
            KdpError: a class has too few samples for a part.
        """
        groups = [group(sample) for sample in samples]
        part_of = self._parts([sample.label for sample in samples], groups)
        chosen = [s for s, own in zip(samples, groups, strict=True) if part_of[own] == part]
        for label in {sample.label for sample in samples} - {sample.label for sample in chosen}:
            raise KdpError(
                f"class {label} has {sum(s.label == label for s in samples)} samples, of which "
                f"{part} gets none; change the shares of the split"
            )
        return chosen

    def _parts(self, labels: Sequence[int], groups: Sequence[str]) -> dict[str, Part]:
        counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        label_of: dict[str, int] = {}
        for label, group in zip(labels, groups, strict=True):
            # A group of several classes counts for that of its first sample.
            counts[label_of.setdefault(group, label)][group] += 1
        parts: dict[str, Part] = {}
        for sizes in counts.values():
            total, before = sum(sizes.values()), 0
            for group in sorted(sizes, key=self._rank):
                parts[group] = self._part_at(before, total)
                before += sizes[group]
        return parts

    def _rank(self, group: str) -> bytes:
        return hashlib.sha256(f"{self.seed} {group}".encode()).digest()

    def _part_at(self, place: int, total: int) -> Part:
        """Of a sample that stands at a place among all of its class."""
        test, val = round(total * self.test), round(total * self.val)
        if place < test:
            return "test"
        return "val" if place < test + val else "train"
