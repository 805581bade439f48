"""Dividing a data set into training, validation and test samples."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
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

    def part(self, samples: Sequence[S], part: Part) -> list[S]:
        """The samples of one part, in their order.

        Every class is divided on its own. The seed and the content of its file decide where a
        sample belongs: names, order and machine do not matter, an added file moves only a few
        others (those at the borders), and files of equal content are in the same part.

        Raises:
            KdpError: a class has too few samples for a part.
        """
        digests = [sha256(sample.files[0]) for sample in samples]
        part_of = self._parts([sample.label for sample in samples], digests)
        chosen = [s for s, digest in zip(samples, digests, strict=True) if part_of[digest] == part]
        for label in {sample.label for sample in samples} - {sample.label for sample in chosen}:
            raise KdpError(
                f"class {label} has {sum(s.label == label for s in samples)} samples, of which "
                f"{part} gets none; change the shares of the split"
            )
        return chosen

    def _parts(self, labels: Sequence[int], digests: Sequence[str]) -> dict[str, Part]:
        counts: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for label, digest in zip(labels, digests, strict=True):
            counts[label][digest] += 1
        parts: dict[str, Part] = {}
        for copies in counts.values():
            total, before = sum(copies.values()), 0
            for digest in sorted(copies, key=self._rank):
                parts[digest] = self._part_at(before, total)
                before += copies[digest]
        return parts

    def _rank(self, digest: str) -> bytes:
        return hashlib.sha256(f"{self.seed} {digest}".encode()).digest()

    def _part_at(self, place: int, total: int) -> Part:
        """Of a sample that stands at a place among all of its class."""
        test, val = round(total * self.test), round(total * self.val)
        if place < test:
            return "test"
        return "val" if place < test + val else "train"
