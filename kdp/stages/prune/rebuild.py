"""`kdp rebuild`: the pruned network, physically smaller, proven equal to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdp.artifacts import Artifact, make_record, read_parents, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.files import file_lock
from kdp.log import log
from kdp.measure.complexity import count_parameters
from kdp.models import fuse as fuse_network
from kdp.models.loading import load_network
from kdp.pruning.groups import Group, Masks, full_masks
from kdp.pruning.identity import MasksIdentity, masks_for
from kdp.pruning.rebuild import FUSED_TOLERANCE, TOLERANCE, largest_difference
from kdp.pruning.rebuild import rebuild as cut
from kdp.stages.experiments.store import record_network
from kdp.stages.paths import ChainPaths, check_made, do_nothing
from kdp.stages.prune.latest import latest_masked
from kdp.stages.prune.masks_check import check_masks_fit
from kdp.stages.prune.request import RebuildRequest
from kdp.stages.replacing import check_targets, earlier_record, log_replaced
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
    fuse: bool = True,
    overwrite: bool = False,
    on_ready: Callable[[], None] = do_nothing,
) -> Rebuilt:
    """Cut the removed units out, and fold normalisations and parallel branches into convolutions.

    Args:
        config: of the chain.
        source: network to rebuild (default: see `_default_source`).
        masks_path: units to keep (default: the chain's masks; all where it does not prune).
        target: where to write.
        fuse: fold normalisations and branches, for a network that can.
        overwrite: replace whatever is there.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: files are missing or do not belong together, what decided the masks has changed,
            the target may not be replaced, or the rebuilt network's output on a probe is not that
            of the source.
    """
    started, request = time.time(), RebuildRequest.from_config(config)
    masks_path = masks_path or _default_masks(request)
    source, target = source or _default_source(request.paths), target or request.paths.rebuilt
    check_targets([target], overwrite)
    model, arch, artifact = load_network(source)
    task = task_for(arch, config)
    groups = task.groups(model)
    masks, identity = _masks(source, model, artifact, masks_path, groups)
    parents = read_parents([source, *([masks_path] if masks_path else [])])
    small, cut_arch = cut(model, arch, groups, masks)
    fused, small_arch = fuse_network(small, cut_arch) if fuse else (small, cut_arch)
    if small_arch == arch:
        raise KdpError(f"there is nothing to rebuild: {source} is as small as it will be")
    log_replaced([target], _source_before(target))
    on_ready()
    probe = task.example(task.input_size)
    difference = _check_equal(model, small, probe, TOLERANCE)
    if small_arch != cut_arch:
        small, difference = fused, _check_equal(model, fused, probe, FUSED_TOLERANCE)
    metrics = {**_measured(artifact), "largest_difference": difference}
    with file_lock(target):
        record = make_record("rebuild", config.plain(), parents, metrics, started)
        save(target, Artifact(small.state_dict(), small_arch, record, dict(identity.plain())))
    record_network(request.experiment, config, "rebuild", target, arch)
    return Rebuilt(target, count_parameters(small), count_parameters(model), difference)


def _measured(artifact: Artifact) -> dict[str, Any]:
    return artifact.record.metrics if artifact.record else {}


def _masks(
    source: Path,
    model: nn.Module,
    artifact: Artifact,
    masks_path: Path | None,
    groups: list[Group],
) -> tuple[Masks, MasksIdentity]:
    """The masks of the source; all units where there is no file of masks."""
    if masks_path is None:
        return full_masks(groups), MasksIdentity.of(artifact)
    return masks_for(source, model, artifact, masks_path, groups)


def _source_before(target: Path) -> str:
    """What the network that is there was made from."""
    record = earlier_record(target)
    return f"made from {record.parents[0].path}" if record and record.parents else ""


def _check_equal(source: nn.Module, small: nn.Module, probe: Tensor, tolerance: float) -> float:
    difference = largest_difference(source, small, probe)
    if not difference <= tolerance:  # "not": NaN has to fail, too
        raise KdpError(f"the rebuilt network differs from its source by {difference:.2g}")
    return difference


def _default_masks(request: RebuildRequest) -> Path | None:
    """The chain's masks, made under the same settings; None where the chain does not prune."""
    path = request.paths.masks
    if request.masks is None:
        return None
    check_made(path, request.masks.stage)
    check_masks_fit(request.masks, path)
    return path


def _default_source(paths: ChainPaths) -> Path:
    """The chain's last network before this stage; a line says which one.

    That is the fine-tuned network, or the recovered or pruned one where none was fine-tuned; the
    trained one where the chain does not prune, or prunes while it trains. A fine-tuned network of
    other masks is refused later, not replaced by the pruned one, which would be worse.
    """
    if paths.source == paths.trained:
        check_made(paths.trained, "train")
        return paths.trained
    if paths.finetuned.exists():
        log.info(f"Rebuilding the fine-tuned network {paths.finetuned}")
        return paths.finetuned
    source = latest_masked(paths)
    kind = "recovered" if source == paths.recovered else "pruned"
    log.info(f"Rebuilding the {kind} network {source}: no network was fine-tuned yet")
    return source
