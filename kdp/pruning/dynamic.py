"""Pruning while training: masks that follow a falling budget, with regrowth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdp.config import DynamicSettings
from kdp.errors import KdpError, suggest
from kdp.pruning.gates import SPARSITY_LOSSES, Gate
from kdp.pruning.groups import Group, Masks, ParamSlice, weights_per_unit
from kdp.pruning.importance.base import Scores
from kdp.pruning.knapsack import Limits, MacCounter
from kdp.pruning.search import PruningPlan, plan_within_budget


@dataclass(frozen=True)
class GatedGroup:
    """A group with the gate on its units, and what a criterion needs to score them.

    Attributes:
        group: the units.
        gate: its factors; `gate.gate.grad` is the gradient of the last step, or None before it.
        weights: the group's parameters as they are without gates, each with its slice.
        cost: MACs of one unit.
    """

    group: Group
    gate: Gate
    weights: Sequence[tuple[ParamSlice, Tensor]]
    cost: float


def gate_magnitude(gated: GatedGroup) -> Tensor:
    """|gate| times cost.

    The search divides importance by cost, so units are removed in the order of |gate| alone.
    """
    return gated.gate.gate.detach().abs().double() * gated.cost


def magnitude(gated: GatedGroup) -> Tensor:
    """Sum of |w| over a unit's weights (Li et al., ICLR 2017), times |gate|."""
    sums = [
        weights_per_unit(w.detach().abs(), s, gated.group.units).sum(1) for s, w in gated.weights
    ]
    return torch.stack(sums).sum(0).double() * gated.gate.gate.detach().abs()


def taylor(gated: GatedGroup) -> Tensor:
    """|gate * gradient|: first-order change of the loss without the unit.

    Molchanov et al. (CVPR 2019), with the gate as the only parameter of the unit. The gradient is
    that of the whole loss, so with `dynamic.loss` the sparsity loss counts as well.
    """
    gate = gated.gate.gate
    if gate.grad is None:
        return torch.zeros(len(gate), dtype=torch.float64)
    return (gate.detach() * gate.grad).abs().double()


GATE_CRITERIA: dict[str, Callable[[GatedGroup], Tensor]] = {
    "gate": gate_magnitude,
    "magnitude": magnitude,
    "taylor": taylor,
}
"""Importance of a group's units after a step: (units,), float64; higher is kept longer."""


def cubic_schedule(step: int, start: int, end: int, target: float) -> float:
    """Share of the MACs to keep after `step` steps: 1 until `start`, `target` from `end` on.

    The cubic schedule of Zhu and Gupta (2017): it prunes fast while most units are redundant,
    and slowly at the end.
    """
    progress = min(max((step - start) / (end - start), 0.0), 1.0)
    # Zhu and Gupta, eq. 1, for a share that starts at 1: s_f + (s_i - s_f)(1 - t)^3.
    return target + (1 - target) * (1 - progress) ** 3


class DynamicPruner:
    """Recomputes the masks of a network while it trains, every `period` steps.

    A mask update ranks units by their mean importance since the previous update. That mean, the
    gates and the masks are buffers of the network, so a resumed run continues identically.

    Args:
        settings: criterion, schedule, period, regrowth, sparsity loss.
        model: the network with its gates, before any wrapper.
        groups: the groups that have a gate.
        gates: by group name, see `kdp.pruning.gates.add_gates`.
        costs: MACs of one unit, by group name.
        count_macs: counts any choice of kept units.
        mac_constraint: share of the MACs to keep at the end, 0..1.
        limits: fewest units and rounding, by kind of group.

    Raises:
        KdpError: there is no such criterion, or the budget cannot be reached.
    """

    def __init__(
        self,
        settings: DynamicSettings,
        model: nn.Module,
        groups: Sequence[Group],
        gates: Mapping[str, Gate],
        costs: Mapping[str, float],
        count_macs: MacCounter,
        mac_constraint: float,
        limits: Limits,
    ) -> None:
        self.settings, self.groups, self.costs = settings, groups, costs
        self.count_macs = count_macs
        self.mac_constraint, self.limits = mac_constraint, limits
        self.importance = _criterion(settings.criterion)
        self.gated_groups = [_gated_group(model, g, gates[g.name], costs[g.name]) for g in groups]
        # A budget out of reach is reported now, not at the end of the training.
        self._plan({g.name: torch.ones(g.units).double() for g in groups}, mac_constraint)

    @property
    def masks(self) -> Masks:
        """The current masks, on the CPU."""
        return {gated.group.name: gated.gate.mask.cpu() for gated in self.gated_groups}

    @property
    def scores(self) -> Scores:
        """The importance that the last mask update used, on the CPU."""
        return {gated.group.name: gated.gate.score.cpu().clone() for gated in self.gated_groups}

    def mac_share(self) -> float:
        """Share of the dense MACs that the current masks keep."""
        kept = {name: int(mask.sum()) for name, mask in self.masks.items()}
        return self.count_macs(kept) / self.count_macs({g.name: g.units for g in self.groups})

    def sparsity_loss(self) -> Tensor:
        """The loss on the gates before its weight; 0 if the settings have none."""
        if self.settings.loss is None:
            return self.gated_groups[0].gate.gate.new_zeros(())
        gates = [gated.gate for gated in self.gated_groups]
        return SPARSITY_LOSSES[self.settings.loss.kind](gates, [g.cost for g in self.gated_groups])

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Measure importance after an optimizer step, and update the masks where they are due.

        Args:
            step: number of finished steps.
        """
        settings = self.settings
        # Early importance says little about the trained units: measuring begins one period before
        # start_step, and the first update is one period after it.
        if not settings.start_step - settings.period < step <= settings.end_step:
            return
        for gated in self.gated_groups:
            importance = self.importance(gated).to(gated.gate.importance)
            # Under fp16 the gradient scaler skips steps whose gradients overflow. One infinite
            # value would stay in the sum until the next update.
            if importance.isfinite().all():
                gated.gate.importance.add_(importance)
                gated.gate.measured.add_(1)
        since_start = step - settings.start_step
        due = since_start % settings.period == 0 or step == settings.end_step
        if since_start > 0 and due:
            self._update_masks(
                cubic_schedule(step, settings.start_step, settings.end_step, self.mac_constraint)
            )

    def _update_masks(self, mac_share: float) -> None:
        """Keep the most important units within a share of the dense MACs."""
        self._finish_measurement()
        scores = self.scores
        if not self.settings.regrowth:
            self._rank_removed_last(scores)
        masks = self._plan(scores, mac_share).masks
        for gated in self.gated_groups:
            current = gated.gate.mask
            mask = masks[gated.group.name].to(current.device)
            current.copy_(mask if self.settings.regrowth else mask & current)

    def _finish_measurement(self) -> None:
        """Turn the sums since the last update into scores, and start new ones."""
        for gated in self.gated_groups:
            gate = gated.gate
            gate.score.copy_(gate.importance / gate.measured.clamp(min=1))
            gate.importance.zero_()
            gate.measured.zero_()

    def _rank_removed_last(self, scores: Scores) -> None:
        """Without regrowth: score removed units below every other unit, in place.

        The search ranks by importance per MAC over all groups, so the smallest ratio of all minus
        one, times the group's cost, puts removed units first in the order of removal.
        """
        smallest = min(float((scores[g.group.name] / g.cost).min()) for g in self.gated_groups)
        for gated in self.gated_groups:
            removed = ~gated.gate.mask.cpu()
            scores[gated.group.name][removed] = (smallest - 1) * gated.cost

    def _plan(self, scores: Scores, mac_share: float) -> PruningPlan:
        return plan_within_budget(
            self.groups, scores, self.costs, self.count_macs, mac_share, self.limits
        )


def _gated_group(model: nn.Module, group: Group, gate: Gate, cost: float) -> GatedGroup:
    """A group with its parameters, found by the names they had before gates were added."""
    params = dict(model.named_parameters())
    # A parametrization moves `layer.weight`; any layer may carry the gate of some group.
    suffix = ".parametrizations.weight.original"
    current = {
        key.replace(suffix, ".weight") if key.endswith(suffix) else key: key for key in params
    }
    weights = [(piece, params[current[piece.param]]) for piece in group.weight_slices]
    return GatedGroup(group, gate, weights, cost)


def _criterion(name: str) -> Callable[[GatedGroup], Tensor]:
    if name not in GATE_CRITERIA:
        raise KdpError(
            f"dynamic.criterion: unknown criterion {name!r}; {suggest(name, GATE_CRITERIA)}"
        )
    return GATE_CRITERIA[name]
