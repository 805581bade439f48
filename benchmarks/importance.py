"""How much faster importance is measured by replay than by one forward pass per unit.

Both ways measure the same units of CATANet-L on the same calibration patches, in turn; every
group is timed, on a few of its units, and weighted by how many it has. The plain loop is timed a
second time with unpadded attention. Run: python benchmarks/importance.py [--patches 8 --size 28]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kdp.config import Config
from kdp.models import build
from kdp.models.attention import true_widths
from kdp.models.loading import load_network
from kdp.models.taps import Taps
from kdp.pruning.groups import Group, full_masks
from kdp.pruning.importance.base import ScoringContext
from kdp.pruning.importance.optin import manifold_distance, normalized_rows, optin
from kdp.pruning.masks import masks_applied
from kdp.tasks import task_for
from kdp.tasks.base import Task

PROBED = 10  # units of a group timed with replay; the plain loop takes the same time for each


Dense = tuple[dict[str, Tensor], Tensor]


@torch.no_grad()
def plain_loop(
    task: Task, context: ScoringContext, dense_pass: Dense, group: Group, units: Sequence[int]
) -> Tensor:
    """Mask, run the whole network, compare: one unit at a time."""
    inputs = task.inputs(context.batch)
    dense, reference = dense_pass
    rows = []
    for unit in units:
        masks = full_masks(list(context.groups))
        masks[group.name][unit] = False
        with masks_applied(context.model, context.groups, masks):
            features, output = traced(task, context.model, inputs)
        distances = [
            manifold_distance(normalized_rows(f, 1), normalized_rows(dense[n], 1))
            for n, f in features.items()
        ]
        distances.append(task.output_distance(output, reference).mean()[None])
        rows.append(torch.cat(distances))
    return torch.stack(rows)


def traced(task: Task, model: nn.Module, inputs: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Tapped features and output of one forward pass."""
    with Taps(model, task.taps(model)) as features:
        output = model(inputs)
    return features, output


def seconds(run: Callable[..., object], *args: object) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    run(*args)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=4)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--weights", type=Path, help="default: random weights")
    options = parser.parse_args()
    calibration = {"patches": options.patches, "patch_size": options.size}
    config = Config.model_validate(
        {"output": {"name": "benchmark"}, "prune": {"calibration": calibration}}
    )
    torch.manual_seed(0)
    arch = {"name": "catanet", "args": {"upscale": 2}}
    model = build(arch.name, **arch.args).eval()
    if options.weights:
        model, arch, _ = load_network(options.weights)
    task = task_for(arch, config)
    context = ScoringContext(model, task.groups(model), task, task.calibration_data(), 0)
    with torch.no_grad():
        dense = traced(task, model, task.inputs(context.batch))
    total = dict.fromkeys(("replay", "loop", "unpadded loop"), 0.0)
    started = time.perf_counter()
    score = optin(context)
    total["replay"] = time.perf_counter() - started
    for group in context.groups:
        units = min(PROBED, group.units)
        probe = Group(**{**group.__dict__, "units": units})
        total["replay"] += seconds(score, probe) * group.units / units
        total["loop"] += seconds(plain_loop, task, context, dense, group, [0]) * group.units
        with true_widths():
            total["unpadded loop"] += (
                seconds(plain_loop, task, context, dense, group, [0]) * group.units
            )
    patches = f"{options.patches} patches of {options.size}x{options.size}"
    table = Table(title=f"importance of all units, {patches}, {torch.get_num_threads()} threads")
    for column in ("way", "seconds", "times replay"):
        table.add_column(column, justify="right" if column != "way" else "left")
    for way, value in total.items():
        table.add_row(way, f"{value:.0f}", f"{value / total['replay']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
