"""Segments of equal length, cut from clips, and training samples made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdp.data.audio import Wave
from kdp.data.order import EpochOrder
from kdp.data.scenes import Clip
from kdp.errors import KdpError

CACHE_BYTES = 2e9
"""Decoded clips that a data set keeps in memory, per worker."""


@dataclass(frozen=True)
class Decoded:
    """A decoded clip at two bytes per sample, quantised to 65,535 levels of the clip's own range.

    On ESC-10 this changes log-mel spectrograms by 0.013 (root mean square); float16, whose steps
    grow with the amplitude, would change them by 0.061.

    Attributes:
        samples: (samples,).
        step: amplitude of one level.
    """

    samples: npt.NDArray[np.int16]
    step: float


@dataclass(frozen=True)
class Segment:
    """A part of a clip.

    Attributes:
        clip: the clip it is cut from.
        start: index of its first sample, at the clip's sampling rate.
    """

    clip: Clip
    start: int

    @property
    def name(self) -> str:
        """Of the clip."""
        return self.clip.name

    @property
    def files(self) -> tuple[Path, ...]:
        """Of the clip."""
        return self.clip.files


def segments(clips: Sequence[Clip], seconds: float = 1.0) -> list[Segment]:
    """Cut every clip into consecutive segments, reading no more than the files' headers.

    The remainder at the end of a clip is dropped, but a clip shorter than one segment is padded to
    one.

    Args:
        clips: the order of clips is the order of segments.
        seconds: length of a segment.

    Raises:
        KdpError: a clip cannot be read.
    """
    # The millionth absorbs rounding: 5 s can be 4.9999999 after a division.
    counts = [max(1, int(_seconds(clip) / seconds + 1e-6)) for clip in clips]
    return [
        Segment(clip, number * _samples(seconds, clip))
        for clip, count in zip(clips, counts, strict=True)
        for number in range(count)
    ]


def waves(segments: Sequence[Segment], seconds: float = 1.0) -> Iterator[Tensor]:
    """Yield (samples,) float32 of each segment, as `SegmentDataset` returns them without a roll.

    A clip is decoded once if its segments are consecutive.
    """
    last: tuple[Clip, Decoded] | None = None
    for segment in segments:
        if last is None or last[0] is not segment.clip:
            last = segment.clip, _decoded(segment.clip)
        yield torch.from_numpy(_cut(last[1], segment, _samples(seconds, segment.clip)))


def votes(probabilities: Tensor, segments: Sequence[Segment]) -> tuple[Tensor, Tensor]:
    """Predict each clip by the mean probabilities of its segments.

    Args:
        probabilities: (N, classes), each row after the softmax.
        segments: the N segments, in the same order.

    Returns:
        True labels and predicted classes, (clips,) each, in the order of the first segments.
    """
    order = {
        name: number for number, name in enumerate(dict.fromkeys(s.clip.name for s in segments))
    }
    clip_index = torch.tensor([order[segment.clip.name] for segment in segments])
    labels = torch.zeros(len(order), dtype=torch.long)
    labels[clip_index] = torch.tensor([segment.clip.label for segment in segments])
    # Sums are enough: dividing by the number of segments does not move the maximum.
    sums = torch.zeros(len(order), probabilities.shape[1], dtype=torch.double)
    sums.index_add_(0, clip_index, probabilities.double().cpu())
    return labels, sums.argmax(1)


class SegmentDataset(Dataset[dict[str, Tensor]]):
    """Segments with their labels, reshuffled in every epoch and rolled in time at random.

    Sample i depends on the seed and on i alone.

    Args:
        clips: the clips to cut into segments.
        seed: of the order and the rolls.
        length: number of samples.
        roll: largest circular shift of a segment, in seconds, in either direction.
        seconds: length of a segment.
        cache_bytes: capacity of the cache of decoded clips; a clip that does not fit is decoded
            again for every sample.

    Attributes:
        segments: all segments; `"segment"` in a sample is an index into them.
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
        self.segments, self.seconds, self.roll = segments(clips, seconds), seconds, roll
        self.seed, self.length, self.cache_bytes = seed, length, cache_bytes
        self._order = EpochOrder(seed, len(self.segments))
        self._cache: dict[str, Decoded] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """`{"wave": (samples,) float32, "label": (), "segment": () index in `segments`}`."""
        index = self._order(number)
        segment = self.segments[index]
        size, roll = (_samples(seconds, segment.clip) for seconds in (self.seconds, self.roll))
        wave = _cut(self._decoded(segment.clip), segment, size)
        random = np.random.default_rng((self.seed, number, 1))
        wave = np.roll(wave, random.integers(-roll, roll + 1))
        label = torch.tensor(segment.clip.label)
        return {"wave": torch.from_numpy(wave), "label": label, "segment": torch.tensor(index)}

    def _decoded(self, clip: Clip) -> Decoded:
        if clip.name in self._cache:
            return self._cache[clip.name]
        decoded = _decoded(clip)
        if self._cached_bytes + decoded.samples.nbytes <= self.cache_bytes:
            self._cache[clip.name] = decoded
            self._cached_bytes += decoded.samples.nbytes
        return decoded


def _samples(seconds: float, clip: Clip) -> int:
    return round(seconds * clip.rate)


def _seconds(clip: Clip) -> float:
    return clip.seconds() if clip.seconds else len(clip.read()) / clip.rate


def _decoded(clip: Clip) -> Decoded:
    """Decode and quantise a clip, cached or not: samples must not depend on the cache."""
    wave = clip.read()
    step = float(np.abs(wave).max()) / np.iinfo(np.int16).max or 1.0
    return Decoded(np.rint(wave / step).astype(np.int16), step)


def _cut(decoded: Decoded, segment: Segment, size: int) -> Wave:
    """The (size,) samples of a segment, padded with zeros at the end of the clip."""
    cut = decoded.samples[segment.start : segment.start + size]
    if not len(cut):
        raise KdpError(f"the recording {segment.clip.name} is shorter than its header says")
    return np.pad(cut * np.float32(decoded.step), (0, size - len(cut)))
