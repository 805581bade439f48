"""`kdp recover`: refit a pruned network without training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from kdp.artifacts import Artifact, make_record, read_parents, save
from kdp.config import Config
from kdp.devices import pick_device
from kdp.files import file_lock
from kdp.models.loading import load_network
from kdp.pruning.identity import masked_extra, masks_for
from kdp.stages.experiments.store import record_network
from kdp.stages.header import log_header
from kdp.stages.paths import check_made, do_nothing
from kdp.stages.prune.masks_check import check_masks_fit
from kdp.stages.prune.quality import Reached, refit_and_measure
from kdp.stages.prune.request import RecoverRequest
from kdp.stages.replacing import check_targets, log_replaced
from kdp.tasks import task_for

STOPPED = "stopped; nothing was written, start again"


@dataclass(frozen=True)
class RecoveredNetwork:
    """What `recover` wrote, and what it reached."""

    path: Path
    reached: Reached


def recover(
    config: Config,
    overwrite: bool = False,
    evaluate: bool = False,
    on_ready: Callable[[], None] = do_nothing,
) -> RecoveredNetwork:
    """Refit the layers of the chain's pruned network that read removed units.

    Reads the pruned network, its masks and the teacher, from which it was pruned; writes
    `{dir}/{name}_recovered.pth`. Where refitting does not bring the outputs on held-out samples
    closer to the teacher's, that is the pruned network.

    Args:
        config: of the chain.
        overwrite: replace whatever is there.
        evaluate: measure the quality before pruning, as cut and recovered.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: a file is missing, what decided the masks has changed, the masks are those of
            another network, the file may not be replaced, or there are too few samples.
        Interrupted: on SIGINT, SIGTERM or SIGHUP; nothing is written.
    """
    started, request = time.time(), RecoverRequest.from_config(config)
    paths = request.paths
    check_made(paths.pruned, "prune")
    check_made(paths.masks, "prune")
    check_masks_fit(request.masks, paths.masks)
    model, arch, artifact = load_network(paths.pruned)
    dense, _, _ = load_network(request.teacher, arch)
    task = task_for(arch, config)
    groups = task.groups(model)
    masks, identity = masks_for(paths.pruned, model, artifact, paths.masks, groups)
    with file_lock(paths.recovered):
        check_targets([paths.recovered], overwrite)
        on_ready()
        _log_header(request, model)
        device = pick_device(request.device)
        reached = refit_and_measure(
            *(request.settings, task, dense.to(device), model.to(device), groups, masks),
            *(request.seed, STOPPED, evaluate),
        )
        parents, plain = read_parents([paths.pruned, paths.masks, request.teacher]), config.plain()
        record = make_record("recover", plain, parents, reached.plain(), started, config.device)
        extra = masked_extra(model.cpu(), groups, masks, identity)
        save(paths.recovered, Artifact(model.state_dict(), arch, record, extra))
    record_network(request.experiment, config, "recover", paths.recovered, metrics=reached.metrics)
    return RecoveredNetwork(paths.recovered, reached)


def _log_header(request: RecoverRequest, model: nn.Module) -> None:
    target, samples = request.paths.recovered, {"calibration": request.settings.samples}
    log_replaced([target])
    log_header(f"kdp recover: {target.stem}", request.device, samples, model, [target])
