"""What `kdp prune` tells: what stays in each block, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from kdp.errors import join_names
from kdp.progress import duration
from kdp.pruning.groups import Group
from kdp.pruning.masks import kept_units
from kdp.stages.prune.prune import Pruned
from kdp.stages.prune.quality import PrunedQuality, Reached
from kdp.stages.prune.recovery import Recovery
from kdp.stages.tables import plain_table, with_unit

console = Console()


def show(found: Pruned) -> None:
    """Print kept units by place and kind, and the MACs of what stays."""
    kinds = list(dict.fromkeys(group.kind for group in found.groups))
    places = list(dict.fromkeys(_place(group) for group in found.groups))
    kept = kept_units(found.plan.masks)
    table = plain_table("units kept")
    table.add_column("place")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for place in places:
        cells = {g.kind: f"{kept[g.name]}/{g.units}" for g in found.groups if _place(g) == place}
        table.add_row(place, *(cells.get(kind, "") for kind in kinds))
    totals = [_total(found.groups, kept, kind) for kind in kinds]
    table.add_section()
    table.add_row("all", *totals)
    console.print(table)
    plan = found.plan
    share = plan.macs / plan.dense_macs
    console.print(f"MACs: {with_unit(plan.macs)}, {share:.1%} of the unpruned network's")
    console.print(f"importance: {plan.kept_importance:.1%} of the sum over all units is kept")
    console.print(f"measuring it took {duration(found.seconds)}")
    show_reached(Reached(found.recovery, found.quality))


def show_reached(reached: Reached) -> None:
    """Print what recovery has gained, and the quality."""
    if reached.recovery is not None:
        _show_recovery(reached.recovery)
    if reached.quality is not None:
        _show_quality(reached.quality)


def _show_recovery(recovery: Recovery) -> None:
    """Print what refitting the layers has gained."""
    result = recovery.result
    refitted = sum(fit.share > 0 for fit in result.layers)
    if not result.layers:
        console.print("recovery: no layer reads what was removed")
        return
    distance = f"distance of outputs from the unpruned network's {result.before:.3g}"
    effort = f"{recovery.samples} samples, {duration(recovery.seconds)}"
    if not result.kept:
        after = f"{result.after:.3g} with refitted layers, which are not kept"
        console.print(f"recovery: {distance}, {after} ({effort})")
        return
    layers = f"{refitted} of {len(result.layers)} layers refitted"
    console.print(f"recovery: {layers}; {distance} -> {result.after:.3g} ({effort})")
    if result.skipped:
        console.print(f"recovery: left as they are: {join_names(result.skipped)}")


def _show_quality(quality: PrunedQuality) -> None:
    """Print the headline metrics of every set before pruning, as cut and recovered."""
    table = plain_table("quality")
    table.add_column("")
    for state in quality.states:
        table.add_column(state, justify="right")
    for name, first in quality.last.items():
        for metric in (metric for metric in quality.headline_metrics if metric in first):
            values = [state[name][metric] for state in quality.states.values()]
            table.add_row(f"{name} {metric}", *(f"{value:.4f}" for value in values))
    console.print(table)


def show_rounds(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what was measured before the first and after each round; quality of every set."""
    sets = list(rows[0]["metrics"])
    primary_metric = rows[0]["primary_metric"]
    table = plain_table("progressive pruning")
    table.add_column("round")
    for title in ("ratio", "epochs", "steps", *(f"{name} {primary_metric}" for name in sets)):
        table.add_column(title, justify="right")
    for title in ("parameters", "MACs", "size"):
        table.add_column(title, justify="right")
    for row in rows:
        quality = [f"{row['metrics'][name][primary_metric]:.4f}" for name in sets]
        asked = [_number(row.get(key)) for key in ("pruning_ratio", "epochs", "steps")]
        macs, size = with_unit(row["macs"]), with_unit(row["bytes"], "B")
        table.add_row(str(row["round"]), *asked, *quality, f"{row['parameters']:,}", macs, size)
    console.print(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _place(group: Group) -> str:
    return group.name.rpartition(".")[0] or group.name


def _total(groups: list[Group], kept: dict[str, int], kind: str) -> str:
    members = [group for group in groups if group.kind == kind]
    return f"{sum(kept[g.name] for g in members)}/{sum(g.units for g in members)}"
