"""One-second segments of clips, their samples, and votes over a clip."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdp.data.audio import duration
from kdp.data.content import check_disjoint
from kdp.data.scenes import Clip, scene_folder
from kdp.data.segments import SegmentDataset, segments, votes, waves
from kdp.errors import KdpError
from kdp.models.mobile import SCENES
from tests.data.audio_helpers import ramp_clip


def test_five_seconds_of_real_audio_are_five_segments(shared: Path) -> None:
    folder = shared / "data" / "esc10"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    with (folder / "meta.csv").open() as file:
        classes = sorted({row["scene_label"] for row in csv.DictReader(file, delimiter="\t")})
    train, test = (scene_folder(folder, f"{name}.csv", classes) for name in ("split100", "test"))
    check_disjoint(train, {"test": test})
    assert (len(train), len(test)) == (240, 80)
    assert Counter(clip.label for clip in test) == dict.fromkeys(range(10), 8)
    five = [clip for clip in test if 5 <= duration(folder / clip.name) < 6]
    assert len(five) > 70
    pieces = segments(five)
    assert [piece.start for piece in pieces] == [0, 32000, 64000, 96000, 128000] * len(five)
    batch = torch.stack(list(waves(pieces[:10])))
    assert batch.shape == (10, 32000)
    # ESC-50 fills sounds shorter than five seconds with silence: not every segment has sound.
    assert batch[::5].abs().amax(1).min() > 0


def test_remainders_are_dropped_and_short_clips_padded() -> None:
    clips = [ramp_clip("long", 2.9), ramp_clip("short", 0.25), ramp_clip("one")]
    pieces = segments(clips)
    assert [(p.clip.name, p.start) for p in pieces] == [
        ("long", 0),
        ("long", 32000),
        ("short", 0),
        ("one", 0),
    ]
    first, second, short, _ = waves(pieces)
    assert_equal_in_16_bits(torch.cat([first, second]), clips[0].read()[:64000])
    assert_equal_in_16_bits(short[:8000], clips[1].read())
    assert not short[8000:].any()


def assert_equal_in_16_bits(segment: Tensor, wave: Any) -> None:
    """Equal but for rounding to 16 bits."""
    torch.testing.assert_close(segment, torch.from_numpy(wave), atol=2e-5, rtol=0)


def test_lengths_come_from_headers_alone(tau: Path) -> None:
    def never() -> Any:
        raise AssertionError("decoded")

    clips = [replace(c, read=never) for c in scene_folder(tau, "split5.csv", SCENES)]
    assert len(segments(clips)) == 3


def test_silence_stays_silent() -> None:
    silent = replace(ramp_clip("silent"), read=lambda: np.zeros(32000, np.float32))
    (wave,) = waves(segments([silent]))
    assert torch.equal(wave, torch.zeros(32000))


def test_a_clip_shorter_than_its_header_says_is_named() -> None:
    clip = replace(ramp_clip("cut off", 1.5), seconds=lambda: 3.0)
    with pytest.raises(KdpError, match="cut off is shorter than its header says"):
        list(waves(segments([clip])))


def test_every_epoch_has_every_segment_in_another_order() -> None:
    data = SegmentDataset([ramp_clip("a", 3, 0), ramp_clip("b", 4, 1)], seed=0, length=21)
    numbers = [int(data[i]["segment"]) for i in range(21)]
    epochs = [numbers[first : first + 7] for first in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(int(data[i]["label"]) == (n >= 3) for i, n in enumerate(numbers))
    assert data[0]["wave"].shape == (32000,)
    assert data[0]["wave"].dtype == torch.float32
    assert data[0]["segment"].dtype == torch.int64
    assert len(data) == 21


def test_a_sample_depends_on_nothing_but_the_seed_and_its_number() -> None:
    clips = [ramp_clip("a", 3), ramp_clip("b", 4, 1)]
    first, second = (SegmentDataset(clips, seed=5, length=30) for _ in range(2))
    expected = [first[i] for i in range(30)]
    for i in (29, 0, 13, 13, 28):
        assert all(torch.equal(value, second[i][key]) for key, value in expected[i].items())
    changed = SegmentDataset(clips, seed=6, length=30)
    assert any(not torch.equal(changed[i]["wave"], expected[i]["wave"]) for i in range(30))


def test_augmentation_rolls_by_at_most_a_tenth_of_a_second() -> None:
    data = SegmentDataset([ramp_clip("a")], seed=0, length=200)
    plain = SegmentDataset([ramp_clip("a")], seed=0, length=1, roll=0)[0]["wave"]
    assert_equal_in_16_bits(plain, ramp_clip("a").read())
    shifts = []
    for i in range(200):
        wave = data[i]["wave"]
        shift = int(wave.argmin())
        shift -= 32000 * (shift > 16000)
        assert torch.equal(wave.roll(-shift), plain)
        shifts.append(shift)
    assert -3200 <= min(shifts) < -2000
    assert 2000 < max(shifts) <= 3200


def test_a_full_cache_decodes_again_with_equal_samples() -> None:
    decodings: Counter[str] = Counter()

    def counted(clip: Clip) -> Clip:
        def read() -> Any:
            decodings[clip.name] += 1
            return clip.read()

        return replace(clip, read=read, seconds=lambda: 1.0)

    clips = [counted(ramp_clip(str(i), label=i)) for i in range(4)]
    room = SegmentDataset(clips, seed=0, length=40)
    all_cached = [room[i]["wave"] for i in range(40)]
    assert set(decodings.values()) == {1}
    decodings.clear()
    tight = SegmentDataset(clips, seed=0, length=40, cache_bytes=2 * 64000)
    assert all(torch.equal(tight[i]["wave"], all_cached[i]) for i in range(40))
    assert sorted(decodings.values()) == [1, 1, 10, 10]


def test_a_clip_is_classified_by_the_mean_over_its_segments() -> None:
    pieces = segments([ramp_clip("x", 3, 0), ramp_clip("y", 1, 1), ramp_clip("z", 2, 2)])
    probabilities = torch.tensor(
        [
            [0.9, 0.1, 0.0],
            [0.4, 0.6, 0.0],
            [0.4, 0.6, 0.0],
            [0.2, 0.5, 0.3],
            [0.5, 0.5, 0.0],
            [0.4, 0.6, 0.0],
        ]
    )
    order = torch.tensor([0, 3, 1, 4, 2, 5])
    for numbers in (torch.arange(6), order):
        labels, predictions = votes(probabilities[numbers], [pieces[i] for i in numbers])
        assert labels.tolist() == [0, 1, 2]
        assert predictions.tolist() == [0, 1, 1]
