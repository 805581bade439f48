"""Pieces of equal length, cut from clips; sample number i is the same whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.data.audio import RATE, Wave
from kdp.data.order import EpochOrder
from kdp.data.scenes import Clip
from kdp.errors import KdpError

CACHE_BYTES = 2e9


@dataclass(frozen=True)
class Decoded:
    """A clip in two bytes a sample.

    Rounded to 65,535 levels of the clip's own range. On ESC-10 this changes log-mel spectrograms by
    0.013 root mean square; float16, which is coarse where the sound is loud, would by 0.061.

    Attributes:
        samples: (samples,) at 32 kHz.
        step: what one is worth.
    """

    samples: npt.NDArray[np.int16]
    step: float


@dataclass(frozen=True)
class Segment:
    """A piece of a clip.

    Attributes:
        clip: where it is from.
        start: its first sample, at 32 kHz.
    """

    clip: Clip
    start: int


def segments(clips: Sequence[Clip], seconds: float = 1.0) -> list[Segment]:
    """Every clip cut from its start, clip by clip; of files no more than the header is read.

    What remains at the end is dropped, but a clip that is shorter than a segment is one.

    Args:
        clips: in the order wanted.
        seconds: length of a segment.

    Raises:
        KdpError: a clip cannot be read, by name.
    """
    size = _samples(seconds)
    # A millionth: 5 s may be 4.9999999 after a division.
    counts = [max(1, int(_seconds(clip) / seconds + 1e-6)) for clip in clips]
    return [
        Segment(clip, number * size)
        for clip, count in zip(clips, counts, strict=True)
        for number in range(count)
    ]


def waves(pieces: Sequence[Segment], seconds: float = 1.0) -> Iterator[Tensor]:
    """(samples,) float32 of each segment in turn, as `SegmentDataset` gives them without a roll.

    A clip is decoded once where its segments follow one another.
    """
    last: tuple[Clip, Decoded] | None = None
    for piece in pieces:
        if last is None or last[0] is not piece.clip:
            last = piece.clip, _decoded(piece.clip)
        yield torch.from_numpy(_cut(last[1], piece, _samples(seconds)))


def votes(probabilities: Tensor, pieces: Sequence[Segment]) -> tuple[Tensor, Tensor]:
    """What each clip is, and what the mean over its segments says that it is.

    Args:
        probabilities: (N, classes), each row after the softmax.
        pieces: the N segments, in the same order.

    Returns:
        Labels and classes found, (clips,) each, in the order of each clip's first segment.
    """
    order = {name: number for number, name in enumerate(dict.fromkeys(p.clip.name for p in pieces))}
    owner = torch.tensor([order[piece.clip.name] for piece in pieces])
    labels = torch.zeros(len(order), dtype=torch.long)
    labels[owner] = torch.tensor([piece.clip.label for piece in pieces])
    sums = torch.zeros(len(order), probabilities.shape[1], dtype=torch.double)
    sums.index_add_(0, owner, probabilities.double().cpu())
    return labels, sums.argmax(1)


def check_disjoint(train: Sequence[Clip], test: Sequence[Clip]) -> None:
    """Splits are lists of files, so a clip's segments stay together, unless a file is in both.

    Raises:
        KdpError: a clip is in both.
    """
    names = {clip.name for clip in train}
    both = [clip.name for clip in test if clip.name in names]
    if both:
        raise KdpError(f"{len(both)} clips are in both training and test data, such as {both[0]}")


class SegmentDataset(Dataset[dict[str, Tensor]]):
    """Segments with their labels, shuffled anew in every epoch, each rolled a little at random.

    Args:
        clips: what to cut.
        seed: of everything random here.
        length: how many samples there are.
        roll: a segment is shifted in a circle by up to so many seconds, either way.
        seconds: length of a segment.
        cache_bytes: decoded clips are kept until they are so many bytes; the others are decoded
            again for every sample.

    Attributes:
        segments: what the numbers in `"segment"` count.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        seed: int,
        length: int,
        roll: float = 0.1,
        seconds: float = 1.0,
        cache_bytes: float = CACHE_BYTES,
    ) -> None:
        self.segments, self.size = segments(clips, seconds), _samples(seconds)
        self.seed, self.length, self.cache_bytes = seed, length, cache_bytes
        self.roll = round(roll * RATE)
        self._order = EpochOrder(seed, len(self.segments))
        self._cache: dict[str, Decoded] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`{"wave": (samples,) float32, "label": (), "segment": () index in `segments`}`."""
        index = self._order(number)
        piece = self.segments[index]
        wave = _cut(self._decoded(piece.clip), piece, self.size)
        random = np.random.default_rng((self.seed, number, 1))
        wave = np.roll(wave, random.integers(-self.roll, self.roll + 1))
        label = torch.tensor(piece.clip.label)
        return {"wave": torch.from_numpy(wave), "label": label, "segment": torch.tensor(index)}

    def _decoded(self, clip: Clip) -> Decoded:
        if clip.name in self._cache:
            return self._cache[clip.name]
        decoded = _decoded(clip)
        if self._cached_bytes + decoded.samples.nbytes <= self.cache_bytes:
            self._cache[clip.name] = decoded
            self._cached_bytes += decoded.samples.nbytes
        return decoded


def _samples(seconds: float) -> int:
    return round(seconds * RATE)


def _seconds(clip: Clip) -> float:
    return clip.seconds() if clip.seconds else len(clip.read()) / RATE


def _decoded(clip: Clip) -> Decoded:
    """Rounded even where it is not kept, so that a sample does not depend on the cache."""
    wave = clip.read()
    step = float(np.abs(wave).max()) / np.iinfo(np.int16).max or 1.0
    return Decoded(np.rint(wave / step).astype(np.int16), step)


def _cut(decoded: Decoded, piece: Segment, size: int) -> Wave:
    """(size,); zeros follow where the clip ends."""
    cut = decoded.samples[piece.start : piece.start + size]
    if not len(cut):
        raise KdpError(f"the sound {piece.clip.name} is shorter than its header says")
    return np.pad(cut * np.float32(decoded.step), (0, size - len(cut)))
