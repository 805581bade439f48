"""Synthetic acoustic scenes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch
from torch import Tensor

from kdp.data.scenes import Clip
from kdp.data.segments import segments
from kdp.data.toy_scenes import DEVICES, SEEN, toy_scenes
from tests.data.audio_helpers import log_mel


def test_toy_scenes_are_deterministic_and_all_differ() -> None:
    train, test = toy_scenes(False), toy_scenes(True)
    assert not {clip.name for clip in train} & {clip.name for clip in test}
    assert Counter(clip.label for clip in train) == dict.fromkeys(range(10), 12)
    assert Counter(clip.label for clip in test) == dict.fromkeys(range(10), 6)
    assert {clip.device for clip in train} == set(SEEN)
    assert {clip.device for clip in test} == set(DEVICES)
    read = [clip.read() for clip in test]
    again = [clip.read() for clip in toy_scenes(True)]
    assert all(np.array_equal(*pair) for pair in zip(read, again, strict=True))
    assert len({wave.tobytes() for wave in read}) == len(read)
    assert all(w.shape == (32000,) and w.dtype == np.float32 and abs(w).max() <= 1 for w in read)
    assert len(segments(test)) == len(test)


def mean_spectra(clips: list[Clip]) -> tuple[Tensor, Tensor]:
    """(clips, 256) log-mel over time, and (clips,) labels."""
    batch = torch.stack([torch.from_numpy(clip.read()) for clip in clips])
    return log_mel()(batch).mean((1, 3)), torch.tensor([clip.label for clip in clips])


def test_toy_scenes_are_separable_but_not_easily() -> None:
    known, labels = mean_spectra(toy_scenes(False))
    centroids = torch.stack([known[labels == label].mean(0) for label in range(10)])
    test = toy_scenes(True)
    spectra, truth = mean_spectra(test)
    right = torch.cdist(spectra, centroids).argmin(1) == truth
    unseen = torch.tensor([clip.device not in SEEN for clip in test])
    assert 0.4 < float(right[unseen].float().mean()) < 0.9
    assert 0.4 < float(right[~unseen].float().mean()) < 0.95
