"""`kdp prune`: measure importance, search masks within a budget, zero what goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config, PruneConfig
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.files import file_lock
from kdp.measure.complexity import COUNTER, build_on_meta, count_macs_of
from kdp.models.loading import load_network
from kdp.pruning.counting import weight_mac_counter
from kdp.pruning.groups import Group, full_masks
from kdp.pruning.importance import combine_scores
from kdp.pruning.importance.base import Scores, ScoringContext
from kdp.pruning.knapsack import Limits, MacCounter
from kdp.pruning.masks import kept_units, zero_removed
from kdp.pruning.rebuild import smaller_arch
from kdp.pruning.search import PruningPlan, plan_pruning, plan_uniform
from kdp.stages.header import log_header
from kdp.stages.paths import chain_paths, do_nothing
from kdp.stages.prune.score_cache import Measurements, measurement_key, prunable
from kdp.stages.replacing import check_targets
from kdp.tasks import task_for
from kdp.tasks.base import ExampleTask, PruningTask
from kdp.types import Arch


@dataclass(frozen=True)
class Pruned:
    """What `prune` wrote and found.

    Attributes:
        pruned, masks: the files.
        plan: masks and MACs.
        groups: all groups of the network.
        seconds: spent measuring importance, earlier runs included.
    """

    pruned: Path
    masks: Path
    plan: PruningPlan
    groups: list[Group]
    seconds: float


def prune(
    config: Config,
    resume: bool = False,
    overwrite: bool = False,
    on_ready: Callable[[], None] = do_nothing,
) -> Pruned:
    """Search the masks that keep the most importance within the budget.

    Args:
        config: of the chain.
        resume: use importance that an interrupted run has measured.
        overwrite: replace whatever is there.
        on_ready: called once the inputs are valid.

    Raises:
        KdpError: no teacher or budget given, a file may not be replaced, or the budget cannot be
            met.
        Interrupted: on SIGINT or SIGTERM; `--resume` goes on.
    """
    if config.teacher is None or (config.mac_constraint or config.pruning_ratio) is None:
        raise KdpError("kdp prune needs `teacher`, and `mac_constraint` or `pruning_ratio`")
    if config.dynamic is not None:
        raise KdpError("this configuration prunes while it trains; take out `dynamic` to prune now")
    started = time.time()
    paths = chain_paths(config)
    expected = config.model.arch if config.model else None
    model, arch, _ = load_network(config.teacher, expected)
    task = task_for(arch, config)
    groups = task.groups(model)
    check_kinds(groups, config.prune)
    with file_lock(paths.masks):
        measurements = Measurements(paths.scores, measurement_key(config), resume)
        chosen = prunable(config, task, model)
        scores_file = [] if measurements.cover(chosen, task.input_size) else [paths.scores]
        check_targets([paths.pruned, paths.masks, *scores_file], overwrite)
        on_ready()
        title = f"kdp prune: {paths.pruned.stem}, criterion {config.prune.criterion}"
        samples = {"calibration": config.prune.calibration.patches}
        log_header(title, config.device, samples, model, [paths.pruned, paths.masks])
        parts = measurements.complete(config, _context(config, task, model, groups), chosen)
        scores = combine_scores(config.prune.criterion, parts, config.prune.options)
        count = macs_by_width(task, arch, groups)
        costs = measurements.unit_costs(config, chosen, count, task.input_size)
        plan = _search(config, groups, chosen, scores, costs, count)
        zero_removed(model.cpu(), groups, plan.masks)
        record = make_record(
            "prune",
            config.plain(),
            [config.teacher],
            _metrics(task, plan),
            started,
            config.device,
        )
        asked = {"mac_constraint": config.mac_constraint, "pruning_ratio": config.pruning_ratio}
        budget = {**asked, **_metrics(task, plan)}
        extra = {"masks": plan.masks, "scores": scores, "budget": budget, "arch_full": arch.plain()}
        save(paths.pruned, Artifact(model.state_dict(), arch, record))
        save(paths.masks, Artifact({}, record=record, extra=extra))
    return Pruned(paths.pruned, paths.masks, plan, groups, measurements.seconds)


def _context(
    config: Config, task: PruningTask, model: nn.Module, groups: list[Group]
) -> ScoringContext:
    device = pick_device(config.device)
    batch = {key: value.to(device) for key, value in task.calibration_data().items()}
    return ScoringContext(model.to(device), groups, task, batch, config.seed)


def _search(
    config: Config,
    groups: list[Group],
    chosen: list[Group],
    scores: Scores,
    costs: dict[str, float],
    count: MacCounter,
) -> PruningPlan:
    limits = Limits(config.prune.min_units, config.prune.round_to)
    if config.mac_constraint is None:
        assert config.pruning_ratio is not None
        plan = plan_uniform(chosen, scores, count, config.pruning_ratio, limits)
        return replace(plan, masks={**full_masks(groups), **plan.masks})
    plan = plan_pruning(chosen, scores, costs, count, config.mac_constraint, limits)
    step = max(costs[g.name] * limits.round_to.get(g.kind, 1) for g in chosen)
    _check_budget(plan, config.mac_constraint, step)
    return replace(plan, masks={**full_masks(groups), **plan.masks})


def macs_by_width(task: ExampleTask, arch: Arch, groups: list[Group]) -> MacCounter:
    """A counter of the MACs with some groups narrowed; groups that are not named keep all units.

    The real counter builds each narrowed network, and caches the result. A counter from weight
    shapes replaces it where both agree on the full network and on half of every group.
    """
    example = task.example(task.input_size)
    full = {group.name: group.units for group in groups}

    @cache
    def counted(kept: tuple[int, ...]) -> int:
        widths = dict(zip(full, kept, strict=True))
        return count_macs_of(smaller_arch(arch, groups, widths), example)

    def count(kept: Mapping[str, int]) -> int:
        return counted(tuple({**full, **kept}.values()))

    quick = weight_mac_counter(build_on_meta(arch), example.to("meta"), groups, count(full))
    half = {name: max(units // 2, 1) for name, units in full.items()}
    return quick if quick(half) == count(half) else count


def check_kinds(groups: list[Group], settings: PruneConfig) -> None:
    """Check that the limits name existing kinds of groups.

    Raises:
        KdpError: a kind does not exist.
    """
    kinds = {group.kind for group in groups}
    named = {*settings.min_units, *settings.round_to, *(settings.kinds or ())}
    for kind in sorted(named - kinds):
        raise KdpError(f"no kind of group is called {kind!r}; available: {sorted(kinds)}")


def misses_budget(macs: int, dense: int, mac_constraint: float, largest_step: float) -> bool:
    """True if the MACs exceed the budget or undershoot it by more than one unit.

    Args:
        macs: of the masked network.
        dense: of the full network.
        mac_constraint: budget as a share of `dense`.
        largest_step: MACs of the most expensive unit, or of `round_to` of them.
    """
    budget = mac_constraint * dense
    return not budget - largest_step <= macs <= budget


def _check_budget(plan: PruningPlan, mac_constraint: float, largest_step: float) -> None:
    if misses_budget(plan.macs, plan.dense_macs, mac_constraint, largest_step):
        raise KdpError(
            f"the search kept {plan.macs / plan.dense_macs:.4f} of the MACs, which misses "
            f"mac_constraint={mac_constraint} by more than one unit (see min_units, round_to)"
        )


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
