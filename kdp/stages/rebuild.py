"""`kdp rebuild`: the pruned network, physically smaller, proven equal to the masked one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import claim
from kdp.models.loading import load_network
from kdp.pruning.masks import load_masks
from kdp.pruning.rebuild import TOLERANCE, largest_difference
from kdp.pruning.rebuild import rebuild as cut
from kdp.stages.paths import chain_paths
from kdp.tasks import task_for


@dataclass(frozen=True)
class Rebuilt:
    """What `rebuild` wrote: the file, its parameters and those before, and the proof."""

    path: Path
    parameters: int
    full_parameters: int
    difference: float


def rebuild(
    config: Config,
    source: Path | None = None,
    masks_path: Path | None = None,
    target: Path | None = None,
) -> Rebuilt:
    """Cut the removed units out; by default of the fine-tuned network of the configuration,
    or of the one that was pruned while it trained.

    Raises:
        KdpError: files are missing or do not belong together, or the rebuilt network's output on
            a probe is not that of the masked one.
    """
    started = time.time()
    paths = chain_paths(config)
    source, masks_path = source or paths.source, masks_path or paths.masks
    target = target or paths.rebuilt
    model, arch, artifact = load_network(source)
    task = task_for(arch, config)
    groups = task.groups(model)
    masks = load_masks(masks_path, groups)
    small, small_arch = cut(model, arch, groups, masks)
    probe = task.example(task.input_size)
    difference = largest_difference(model, small, groups, masks, probe)
    if not difference <= TOLERANCE:
        raise KdpError(f"the rebuilt network differs from the masked one by {difference:.2g}")
    with claim(target):
        metrics = {**artifact.record.get("metrics", {}), "largest_difference": difference}
        record = make_record("rebuild", config.plain(), [source, masks_path], metrics, started)
        save(target, Artifact(small.state_dict(), small_arch, record))
    counts = [sum(p.numel() for p in network.parameters()) for network in (small, model)]
    return Rebuilt(target, counts[0], counts[1], difference)
