"""Distance between the attention maps of networks and their teacher, on the evaluation images.

The loss of attention transfer without alignment: ||A_t - A_s|| of each image, averaged over the
images, by tap and summed. Run:
python benchmarks/attention_distance.py -c yolo11_smoke.yml --set boxes=bccd TEACHER FILE...
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kdp.config.compose import load_config
from kdp.data.detection import letterbox
from kdp.data.patches import to_tensor
from kdp.distillation.losses import attention_map
from kdp.models.loading import load_network
from kdp.models.taps import Taps
from kdp.tasks.detection.task import Detection


def maps(model: nn.Module, batches: Iterator[Tensor], taps: list[str]) -> dict[str, Tensor]:
    """Attention maps of all images by tap: (images, positions)."""
    maps_by_tap: dict[str, list[Tensor]] = {tap: [] for tap in taps}
    for batch in batches:
        with torch.no_grad(), Taps(model, taps) as features:
            model(batch)
        for tap in taps:
            maps_by_tap[tap].append(attention_map(features[tap], 2.0))
    return {tap: torch.cat(batch_maps) for tap, batch_maps in maps_by_tap.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    config = load_config(options.config, options.set)
    teacher, arch, _ = load_network(options.files[0])
    task = Detection(arch, config)
    taps = task.taps(teacher)
    images = [
        to_tensor(letterbox(image.read(), task.size)[0])
        for image_set in task.evaluation_sets.values()
        for image in image_set
    ]
    batches = torch.stack(images).split(8)
    teacher_maps = maps(teacher, iter(batches), taps)
    table = Table(title=f"attention distance to {options.files[0].name}, {len(images)} images")
    for column in ("network", *taps, "sum"):
        table.add_column(column)
    for file in options.files[1:]:
        student_maps = maps(load_network(file)[0], iter(batches), taps)
        distances = [
            float((student_maps[tap] - teacher_maps[tap]).norm(dim=1).mean()) for tap in taps
        ]
        table.add_row(file.stem, *(f"{value:.3f}" for value in (*distances, sum(distances))))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
