"""The summary of times after `kdp infer` on a stream."""

from __future__ import annotations

import pytest

from kdp.stages.infer.times import FrameTimes, TimeSummary


def test_mean_median_and_percentile() -> None:
    summary = TimeSummary.of([*range(1, 101), 1000.0])
    assert summary.mean == pytest.approx(6050 / 101)
    assert (summary.median, summary.p95) == (51, 96)


def test_the_first_frame_warms_up() -> None:
    times = FrameTimes()
    for number, ms in enumerate((500.0, 10.0, 20.0)):
        times.add(ms, {"detector": ms - 2, "classifier": 2.0}, now=number / 4)
    assert times.summaries["frame"] == TimeSummary(15, 15, 19.5)
    assert times.summaries["classifier"] == TimeSummary(2, 2, 2)
    assert times.rate == 4
    assert times.lines()[0] == "Times of 2 frames (without the first), in ms:"


def test_a_part_counts_the_frames_that_needed_it() -> None:
    times = FrameTimes()
    for now, parts in enumerate(({}, {"classifier": 4.0}, {})):
        times.add(9.0, {"detector": 8.0, **parts}, now=now)
    assert times.summaries["classifier"] == TimeSummary(4, 4, 4)


@pytest.mark.parametrize("frames", [0, 1])
def test_a_stream_of_hardly_any_frames(frames: int) -> None:
    times = FrameTimes()
    for _ in range(frames):
        times.add(7.0, {}, now=1.0)
    assert times.rate is None
    expected = ["Times of 1 frames, in ms:", "  frame: mean 7.00, median 7.00, p95 7.00"]
    assert times.lines() == expected[: 2 * frames]
