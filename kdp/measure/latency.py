"""Latency of forward passes, measured robustly on a machine that also runs other programs."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdp.devices import device_of
from kdp.measure.complexity import eval_mode

UNRELIABLE_SPREAD = 0.2
"""Interquartile range over median above which a latency says more about the machine's other work
than about the network."""


@dataclass(frozen=True)
class Latency:
    """Times of repeated forward passes, in milliseconds.

    Attributes:
        median: median of the runs.
        q1, q3: lower and upper quartile.
        runs: number of runs, warm-up excluded.
        mean: of the same runs; above the median where a few runs were disturbed.
    """

    median: float
    q1: float
    q3: float
    runs: int
    mean: float

    @property
    def is_reliable(self) -> bool:
        """False if the runs scatter too much for the median to be compared."""
        return self.spread <= UNRELIABLE_SPREAD * self.median

    @property
    def spread(self) -> float:
        """The interquartile range, in milliseconds."""
        return self.q3 - self.q1


def latencies(
    models: Sequence[nn.Module], example: Tensor, warmup: int, runs: int
) -> list[Latency]:
    """Time several networks in turn (A B C A B C ...), so that drift affects all of them alike.

    Args:
        models: each on its own device; their training modes are restored.
        example: the input of all; it is moved to each network's device before the clock starts.
        warmup: rounds that are not counted.
        runs: rounds that are counted.
    """
    inputs = [example.to(device_of(model)) for model in models]
    times: list[list[float]] = [[] for _ in models]
    for round_ in range(warmup + runs):
        for model, x, durations in zip(models, inputs, times, strict=True):
            elapsed = _time_once(model, x)
            if round_ >= warmup:
                durations.append(elapsed)
    return [_summary(durations) for durations in times]


def device_name(device: torch.device) -> str:
    """Model name of the device, as far as the system reports it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, threads: {torch.get_num_threads()}"


def _time_once(model: nn.Module, x: Tensor) -> float:
    with eval_mode(model):
        _wait(x.device)
        started = time.perf_counter()
        model(x)
        _wait(x.device)
        return (time.perf_counter() - started) * 1e3


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(times: list[float]) -> Latency:
    if len(times) == 1:
        return Latency(times[0], times[0], times[0], 1, times[0])
    q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, q1, q3, len(times), statistics.fmean(times))


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
