"""How much faster CATANet-L is when attention reaches a fused kernel.

Heads of 9 and 10 channels fit no fused kernel as they are; padded with zeros they do. The same
network runs with padded and with unpadded attention, in turn, so that both meet the same load of
the machine. A third network leaves attention out and keeps everything around it: no kernel, however
fast, could make the ratio larger than the bound that this gives.
Run: python benchmarks/attention.py [--threads 2 --runs 5 --profile --json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from kdp.files import write_atomic
from kdp.measure.latency import device_name
from kdp.models import build, catanet_layers, catanet_tab
from kdp.models.attention import true_widths

FORWARD, STEP = (1, 3, 128, 128), (4, 3, 48, 48)


def no_attention(q_XAQD: Tensor, k_XAKD: Tensor, v_XAKE: Tensor) -> Tensor:
    """In the place of `attend`: the first value for every query, (X, A, Q, E)."""
    return v_XAKE[..., :1, :].expand(*q_XAQD.shape[:-1], -1)


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """The network without the products and the softmax of attention."""
    with (
        mock.patch.object(catanet_layers, "attend", no_attention),
        mock.patch.object(catanet_tab, "attend", no_attention),
    ):
        yield


MODES: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "padded": contextlib.nullcontext,
    "unpadded": true_widths,
    "left out": left_out,
}


@dataclass(frozen=True)
class Times:
    """Seconds of the runs of one work in one mode: by the clock, and of all CPU cores together."""

    wall: list[float]
    cpu: list[float]


def network() -> nn.Module:
    """CATANet-L x2 that has token centres; speed does not depend on the weights."""
    torch.manual_seed(0)
    model = build("catanet", upscale=2).train()
    with torch.no_grad():
        model(torch.rand(2, 3, 48, 48))
    return model


def works(model: nn.Module) -> dict[str, Callable[[], None]]:
    """What is timed, by name."""
    image, batch = torch.rand(FORWARD), torch.rand(STEP)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)

    def forward() -> None:
        model.eval()
        with torch.inference_mode():
            model(image)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        model(batch).abs().mean().backward()
        optimizer.step()

    forward_size, step_size = ("x".join(map(str, size)) for size in (FORWARD, STEP))
    return {f"forward {forward_size}": forward, f"training step {step_size}": step}


def measure(work: Callable[[], None], runs: int) -> dict[str, Times]:
    """Time the modes in turn, after one run of each that does not count."""
    times = {mode: Times([], []) for mode in MODES}
    for number in range(runs + 1):
        for mode, context in MODES.items():
            with context():
                wall, cpu = time.perf_counter(), time.process_time()
                work()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                times[mode].wall.append(wall)
                times[mode].cpu.append(cpu)
    return times


def summary(times: dict[str, Times]) -> dict[str, Any]:
    """Medians in seconds, and how many times longer unpadded attention takes."""
    row: dict[str, Any] = {}
    for clock in ("wall", "cpu"):
        medians = {m: statistics.median(getattr(t, clock)) for m, t in times.items()}
        slow = medians["unpadded"]
        ratios = {"ratio": slow / medians["padded"], "bound": slow / medians["left out"]}
        row[clock] = {**medians, **ratios}
    row["runs"] = {mode: vars(t) for mode, t in times.items()}
    return row


def difference(model: nn.Module) -> float:
    """Largest difference of the outputs of both modes, in float64 (near-ties do not flip there)."""
    x = torch.rand(1, 3, 40, 40, dtype=torch.float64)
    model = model.double().eval()
    outputs = []
    for mode in ("padded", "unpadded"):
        with MODES[mode](), torch.inference_mode():
            outputs.append(model(x))
    model.float()
    return float((outputs[0] - outputs[1]).abs().max())


def top_operations(work: Callable[[], None], count: int = 8) -> list[tuple[str, float, int]]:
    """Operations by their own CPU time in padded mode: name, share of all, calls."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    events = sorted(profiler.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return [(e.key, e.self_cpu_time_total / total, e.count) for e in events[:count]]


def show(rows: dict[str, dict[str, Any]], machine: dict[str, str], console: Console) -> None:
    """Print the table."""
    title = f"{machine['device']}, torch {machine['torch']}"
    heads = ("CATANet-L x2", "clock", "padded", "unpadded", "left out", "ratio", "bound")
    table = Table(*heads, title=title)
    for name, row in rows.items():
        for clock in ("wall", "cpu"):
            r = row[clock]
            seconds = (f"{r[mode]:.3f} s" for mode in MODES)
            table.add_row(name, clock, *seconds, f"{r['ratio']:.2f}x", f"{r['bound']:.2f}x")
    console.print(table)


def show_profiles(model: nn.Module, console: Console) -> dict[str, Any]:
    """Print where the time of padded mode goes, and return it."""
    profiles = {name: top_operations(work) for name, work in works(model).items()}
    for name, operations in profiles.items():
        table = Table("operation", "own CPU time", "calls", title=f"{name}, padded")
        for operation, share, calls in operations:
            table.add_row(operation, f"{share:.1%}", str(calls))
        console.print(table)
    return profiles


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each mode; the median counts")
    parser.add_argument("--threads", type=int, help="CPU threads (default: as torch chooses)")
    parser.add_argument("--profile", action="store_true", help="show where padded time goes")
    parser.add_argument("--json", type=Path, help="write everything to a file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    console, model = Console(), network()
    machine = {"device": device_name(torch.device("cpu")), "torch": torch.__version__}
    apart = difference(model)
    rows = {name: summary(measure(work, options.runs)) for name, work in works(model).items()}
    show(rows, machine, console)
    console.print(f"outputs of both modes differ by {apart:.1e} at most (float64)")
    profiles = show_profiles(model, console) if options.profile else {}
    if options.json:
        everything = {"machine": machine, "difference": apart, "works": rows, "profile": profiles}
        write_atomic(options.json, json.dumps(everything, indent=1).encode())


if __name__ == "__main__":
    main()
