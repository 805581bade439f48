"""What each distillation loss costs, and what the sampled affinity saves.

The first table: one training step of CATANet-XS (configs/train_student_distill.yml) with each loss,
in turn and in one run; peak memory is that of a process of its own. The second: FAKD's loss of a
64x64 feature map, exact and sampled, on features of two trained networks.
Run: python benchmarks/distilling.py [--student F --runs 7 --draws 400 --json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import default_collate

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.distillation.losses import affinity, make_loss
from kdp.files import write_atomic
from kdp.measure.latency import device_name
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.taps import Taps
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import TrainingRequest
from kdp.tasks import task_for

CONFIG = Path("configs/train_student_distill.yml")
LOSSES: dict[str, dict[str, Any]] = {
    "none": {},
    "output": {"output": {}},
    "feature": {"feature": {}},
    "attention_transfer": {"attention_transfer": {}},
    "fakd, 256 rows": {"fakd": {"options": {"sample": 256}}},
    "fakd, exact": {"fakd": {"options": {"sample": None}}},
    "output + fakd": {"output": {}, "fakd": {}},
}


def configuration(losses: dict[str, Any]) -> Config:
    """The student's, with these losses."""
    plain = load_config(CONFIG, ["device=cpu"]).plain()
    distill = {**plain["distill"], "losses": losses} if losses else None
    return Config.model_validate({**plain, "distill": distill})


def step_of(name: str) -> Callable[[], None]:
    """A training step with the losses of this name."""
    config = configuration(LOSSES[name])
    assert config.model is not None
    request = TrainingRequest.from_config(config, "train")
    batch_size = request.settings.batch_size
    torch.manual_seed(0)
    model = build(config.model.name, **config.model.args).train()
    task = task_for(config.model.arch, config)
    objective = build_objective(task, model, request.distill, request.settings.steps)
    data = objective.data(batch_size)
    batch = default_collate([data[number] for number in range(batch_size)])
    alignments = objective.extra_modules.parameters()
    optimizer = torch.optim.Adam([*model.parameters(), *alignments])

    def step() -> None:
        optimizer.zero_grad()
        objective.objective(model, batch, 0)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def step_times(runs: int) -> dict[str, list[float]]:
    """Seconds of each step, the losses in turn, after one round that does not count."""
    steps = {name: step_of(name) for name in LOSSES}
    times: dict[str, list[float]] = {name: [] for name in LOSSES}
    for number in range(runs + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def peak_memory() -> int:
    """The most memory this process has had so far, in bytes; Linux."""
    status = Path("/proc/self/status").read_text()  # getrusage would count what started it too
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def in_a_process(name: str) -> int:
    """`peak_memory` of a process that makes two steps, or computes an affinity, and ends."""
    command = [sys.executable, __file__, "--peak", name]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_of(name: str) -> int:
    """What the process that `in_a_process` starts does."""
    if name in LOSSES:
        step = step_of(name)
        step(), step()
        return peak_memory()
    loss, before = make_loss("fakd", {"sample": None if name == "exact" else int(name)}), 0
    for side in (8, 64):  # the small one loads what any loss needs
        before = peak_memory()
        feature = torch.randn(1, 40, side, side, requires_grad=True)
        loss({"x": (feature, torch.randn(1, 40, side, side))}, torch.Generator()).backward()  # type: ignore[no-untyped-call]
    return peak_memory() - before


def real_features(student: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Features of the student and its teacher, 64x64, at the configured taps."""
    config = load_config(CONFIG)
    assert config.distill is not None
    assert config.distill.teacher is not None
    assert isinstance(config.distill.taps, dict)
    model, arch, _ = load_network(student)
    teacher = load_network(config.distill.teacher.paths[0])[0]
    image = task_for(arch, config).evaluation_sets["embedded"][0].lr()[:64, :64]
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 255
    tapped = []
    for network, names in ((model, config.distill.taps), (teacher, config.distill.taps.values())):
        with Taps(network, list(names)) as features, torch.no_grad():
            network(x)
        tapped.append(list(features.values()))
    return dict(zip(config.distill.taps, zip(*tapped, strict=True), strict=True))


def sampling(student: Path, draws: int) -> list[dict[str, Any]]:
    """Exact and sampled affinity loss of each tap."""
    rows = []
    for name, (mine, theirs) in real_features(student).items():
        pair, random = {name: (mine.double(), theirs.double())}, torch.Generator().manual_seed(0)
        exact = float(make_loss("fakd", {"sample": None})(pair, random))
        drawn = [float(make_loss("fakd", {"sample": 256})(pair, random)) for _ in range(draws)]
        mean, spread = statistics.fmean(drawn), statistics.stdev(drawn)
        error = abs(mean / exact - 1)
        rows.append({"tap": name, "exact": exact, "mean": mean, "error": error, "spread": spread})
    return rows


def show(times: dict[str, list[float]], peaks: dict[str, int]) -> None:
    """Print the first table."""
    table = Table("loss", "s / step", "ratio", "peak MB", title="one step of CATANet-XS, 2x54x54")
    base = statistics.median(times["none"])
    for name, own in times.items():
        median = statistics.median(own)
        peak = f"{peaks[name] / 1e6:.0f}"
        table.add_row(name, f"{median:.3f}", f"{median / base:.2f}x", peak)
    Console().print(table, f"median of {len(own)}; {device_name(torch.device('cpu'))}")


def show_sampling(rows: list[dict[str, Any]], peaks: dict[str, int], draws: int) -> None:
    """Print the second table."""
    table = Table("tap", "exact", f"mean of {draws}", "error", "spread of one")
    for row in rows:
        relative = row["spread"] / row["exact"]
        numbers = (f"{row['exact']:.5f}", f"{row['mean']:.5f}", f"{row['error']:.3%}")
        table.add_row(row["tap"], *numbers, f"{relative:.1%}")
    size = affinity(torch.zeros(1, 1, 64, 64), torch.arange(256)).nbytes
    ratio = f"{size / 1e6:.1f} of {4096**2 * 4 / 1e6:.1f} MB"
    grown = f"{peaks['256'] / 1e6:.0f} against {peaks['exact'] / 1e6:.0f} MB"
    Console().print(table, f"one affinity at 64x64: {ratio}; forward and backward: {grown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", type=Path, default=Path("weights/student_bsds.pth"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        print(peak_of(given.peak))
        return
    load_network(given.student)  # fail now rather than after the timing
    times, peaks = step_times(given.runs), {name: in_a_process(name) for name in LOSSES}
    show(times, peaks)
    sampled = {name: in_a_process(name) for name in ("256", "exact")}
    rows = sampling(given.student, given.draws)
    show_sampling(rows, sampled, given.draws)
    if given.json:
        results = {
            "seconds": times,
            "peak_bytes": peaks,
            "sampled": rows,
            "affinity_bytes": sampled,
        }
        write_atomic(given.json, json.dumps(results, indent=1).encode())


if __name__ == "__main__":
    main()
