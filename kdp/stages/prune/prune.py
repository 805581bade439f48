"""`kdp prune`: measure importance, search masks within a budget, set removed units to zero."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kdp.artifacts import Artifact, make_record, read_parents, save
from kdp.config import Config
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import file_lock
from kdp.finite import first_nonfinite
from kdp.measure.complexity import COUNTER
from kdp.models.loading import load_network
from kdp.pruning.groups import Group, Masks, full_masks
from kdp.pruning.identity import MasksIdentity, masked_extra, masks_digest, network_digest
from kdp.pruning.importance import combine_scores
from kdp.pruning.importance.base import RawScores, Scores, ScoringContext
from kdp.pruning.knapsack import Limits, MacCounter
from kdp.pruning.masks import kept_units, zero_removed
from kdp.pruning.search import PruningPlan, plan_pruning, plan_uniform
from kdp.stages.experiments.store import record_network
from kdp.stages.header import log_header
from kdp.stages.paths import do_nothing
from kdp.stages.prune.budget import check_kinds, check_plan, macs_by_width
from kdp.stages.prune.quality import PrunedQuality, Reached, refit_and_measure
from kdp.stages.prune.recovery import Recovery
from kdp.stages.prune.request import PruneRequest
from kdp.stages.prune.score_cache import Measurements, prunable
from kdp.stages.replacing import check_targets, earlier_record, log_replaced
from kdp.stages.settings import difference, masks_settings
from kdp.tasks import task_for
from kdp.tasks.base import ExampleTask, PruningTask, Task
from kdp.types import Arch, Provenance


@dataclass(frozen=True)
class Pruned:
    """The files that `prune` wrote, and what it decided.

    Attributes:
        pruned, masks: the files.
        plan: masks and MACs.
        groups: all groups of the network.
        seconds: time that measuring importance took, earlier runs included.
        recovery: what refitting reached, if it is configured.
        quality: before pruning, as cut and recovered, if it was measured.
    """

    pruned: Path
    masks: Path
    plan: PruningPlan
    groups: list[Group]
    seconds: float
    recovery: Recovery | None = None
    quality: PrunedQuality | None = None


def prune(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    evaluate: bool = False,
    on_ready: Callable[[], None] = do_nothing,
    later_round: bool = False,
) -> Pruned:
    """Search the masks that keep the most importance within the budget.

    Args:
        config: of the chain.
        resume: use importance that an interrupted run has measured.
        overwrite: replace whatever is there.
        evaluate: measure the quality before pruning, as cut and recovered.
        on_ready: called once the inputs are valid.
        later_round: the teacher was pruned by earlier rounds, see `check_kinds`.

    Raises:
        KdpError: no teacher or budget given, a file may not be replaced, importance is not finite,
            or the budget cannot be met.
        Interrupted: on SIGINT, SIGTERM or SIGHUP; `--resume` continues.
    """
    started, request = time.time(), PruneRequest.from_config(config)
    paths = request.paths
    model, arch, _ = load_network(request.teacher, request.arch)
    parents = read_parents([request.teacher])
    task = task_for(arch, config)
    groups = task.groups(model)
    check_kinds(groups, request.settings, later_round)
    with file_lock(paths.masks):
        measurements = Measurements(request, parents[0], task.training_samples, resume, overwrite)
        candidates = prunable(request.settings, task, model)
        scores_file = [] if measurements.cover(candidates, task.input_size) else [paths.scores]
        check_targets([paths.pruned, paths.masks, *scores_file], overwrite)
        on_ready()
        _log_header(request, model, scores_file)
        scores, plan = _search(request, measurements, task, arch, model, groups)
        identity = MasksIdentity(masks_digest(plan.masks), network_digest(model.state_dict()))
        cut = _cut(request, task, model, groups, plan.masks, evaluate)
        plain, reached = config.plain(), _metrics(task, plan)
        metrics = {**reached, **cut.plain()}
        record = make_record("prune", plain, parents, metrics, started, config.device)
        # The masks are written last: where they exist, the pruned network does too.
        extra = masked_extra(model.cpu(), groups, plan.masks, identity)
        save(paths.pruned, Artifact(model.state_dict(), arch, record, extra))
        save(paths.masks, _masks_artifact(request, plan, scores, identity, arch, record, reached))
    record_network(request.experiment, config, "prune", paths.pruned, metrics=cut.metrics)
    files, seconds = (paths.pruned, paths.masks), measurements.seconds
    return Pruned(*files, plan, groups, seconds, cut.recovery, cut.quality)


STOPPED = "stopped; the importance of units is saved, start again"


def _cut(
    request: PruneRequest,
    task: Task,
    model: nn.Module,
    groups: list[Group],
    masks: Masks,
    evaluate: bool,
) -> Reached:
    """Set the removed units to zero, recover the network if that is configured, and measure."""
    dense = copy.deepcopy(model)
    zero_removed(model, groups, masks)
    return refit_and_measure(
        *(request.recover, task, dense, model, groups, masks, request.seed, STOPPED, evaluate)
    )


def _search(
    request: PruneRequest,
    measurements: Measurements,
    task: PruningTask,
    arch: Arch,
    model: nn.Module,
    groups: list[Group],
) -> tuple[Scores, PruningPlan]:
    """Score the units that may go, as far as that was not done, and choose which do."""
    candidates = prunable(request.settings, task, model)
    context = scoring_context(request.device, request.seed, task, model, groups)
    scores = _scores(request, measurements.complete(context, candidates))
    count = macs_by_width(task, arch, groups)
    costs = measurements.unit_costs(candidates, count, task.input_size)
    return scores, _plan(request, candidates, groups, scores, costs, count)


def _settings_before(request: PruneRequest) -> str:
    """With which setting the masks that are there were made, where it was another one."""
    record = earlier_record(request.paths.masks)
    if record is None:
        return ""
    now = masks_settings(request.config.plain())
    change = difference(masks_settings(record.config), now)
    return f"made with {change}" if change else ""


def _log_header(request: PruneRequest, model: nn.Module, scores_file: list[Path]) -> None:
    paths, settings = request.paths, request.settings
    log_replaced([paths.pruned, paths.masks], _settings_before(request))
    title = f"kdp prune: {paths.pruned.stem}, criterion {settings.criterion}"
    samples = {"calibration": settings.calibration.patches}
    log_header(title, request.device, samples, model, [paths.pruned, paths.masks, *scores_file])


def scoring_context(
    device_name: str, seed: int, task: PruningTask, model: nn.Module, groups: list[Group]
) -> ScoringContext:
    """What a criterion scores: the network on its device, with the calibration data.

    Args:
        device_name: `device` of the configuration.
        seed: of a random criterion.
        task: of the network.
        model: the network; it is moved to the device.
        groups: all groups of the network.
    """
    device = pick_device(device_name)
    batch = {key: value.to(device) for key, value in task.calibration_data().items()}
    return ScoringContext(model.to(device), groups, task, batch, seed)


def _plan(
    request: PruneRequest,
    candidates: list[Group],
    groups: list[Group],
    scores: Scores,
    costs: dict[str, float],
    count: MacCounter,
) -> PruningPlan:
    """The same share of every group, or what keeps the most importance within the MACs.

    Groups that are no candidates keep everything.
    """
    limits = Limits(request.settings.min_units, request.settings.round_to)
    if request.pruning_ratio is not None:
        plan = plan_uniform(candidates, scores, count, request.pruning_ratio, limits)
    else:
        budget = request.mac_constraint or 1.0
        plan = plan_pruning(candidates, scores, costs, count, budget, limits)
        step = max(costs[g.name] * limits.round_to.get(g.kind, 1) for g in candidates)
        check_plan(plan, budget, step)
    return replace(plan, masks={**full_masks(groups), **plan.masks})


def _scores(request: PruneRequest, measured: RawScores) -> Scores:
    """One score per unit.

    Raises:
        KdpError: a score is not finite.
    """
    scores = combine_scores(request.settings.criterion, measured, request.settings.options)
    if name := first_nonfinite(scores):
        raise KdpError(f"the importance of {name} is not finite: see {request.paths.scores}")
    return scores


def _masks_artifact(
    request: PruneRequest,
    plan: PruningPlan,
    scores: Scores,
    identity: MasksIdentity,
    arch: Arch,
    record: Provenance,
    reached: Mapping[str, Any],
) -> Artifact:
    wanted = {
        "mac_constraint": request.mac_constraint,
        "pruning_ratio": request.pruning_ratio,
    }
    extra = {
        "masks": plan.masks,
        "scores": scores,
        "budget": {**wanted, **reached},
        "arch_full": arch.plain(),
        **identity.plain(),
    }
    return Artifact({}, record=record, extra=extra)


def _metrics(task: ExampleTask, plan: PruningPlan) -> dict[str, Any]:
    return {
        "macs": plan.macs,
        "planned_macs": plan.planned_macs,
        "dense_macs": plan.dense_macs,
        "kept_importance": plan.kept_importance,
        "kept_units": kept_units(plan.masks),
        "counter": COUNTER,
        "input_size": list(task.input_size),
    }
