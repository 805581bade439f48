"""Pruning while training: which units the budget of the moment keeps, chosen again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdp.config import DynamicConfig
from kdp.errors import KdpError, suggest
from kdp.pruning.gates import SPARSITY_LOSSES, Gate
from kdp.pruning.groups import Group, Masks, ParamSlice, weights_per_unit
from kdp.pruning.importance.base import Scores
from kdp.pruning.knapsack import Limits, MacCounter
from kdp.pruning.search import PruningPlan, plan_within_budget


@dataclass(frozen=True)
class GatedGroup:
    """A group while it trains.

    Attributes:
        group: what it is.
        gate: its factors; `gate.gate.grad` is the gradient of the last step, None before it.
        weights: the group's parameters without gates, each with its slice.
        cost: operations (MACs) of one unit.
    """

    group: Group
    gate: Gate
    weights: Sequence[tuple[ParamSlice, Tensor]]
    cost: float


def gate_magnitude(gated: GatedGroup) -> Tensor:
    """|gate| times cost: units go in the order of |gate|, whatever they cost."""
    return gated.gate.gate.detach().abs().double() * gated.cost


def magnitude(gated: GatedGroup) -> Tensor:
    """Sum of |w| over a unit's weights (Li et al. 2017), |gate| included."""
    sums = [
        weights_per_unit(w.detach().abs(), s, gated.group.units).sum(1) for s, w in gated.weights
    ]
    return torch.stack(sums).sum(0).double() * gated.gate.gate.detach().abs()


def taylor(gated: GatedGroup) -> Tensor:
    """|gate * its gradient|: the change of the loss without the unit (Molchanov et al. 2019).

    Of the whole loss: where `dynamic.loss` is on, the pull of that on a gate counts too.
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
"""Importance of the units of a group after a step: (units,), float64. Higher stays longer."""


def cubic_schedule(step: int, start: int, end: int, target: float) -> float:
    """Share of the operations to keep after `step` steps: from 1 to `target`, along a cube.

    Fast while much is superfluous, slow towards the end (Zhu and Gupta 2017).
    """
    done = min(max((step - start) / (end - start), 0.0), 1.0)
    return target + (1 - target) * (1 - done) ** 3


class DynamicPruner:
    """Closes and opens gates while a network trains.

    The importance that decides is the mean over the steps since the last choice; it, the gates
    and the masks are part of the network's state, so that a resumed run goes on the same.

    Args:
        settings: criterion, ramp, period, regrowth.
        model: the network with its gates, before any wrapper.
        groups: those with gates.
        gates: theirs, by name.
        costs: operations of one unit, by group.
        count: operations by kept units.
        mac_constraint: share of the operations to keep in the end.
        limits: what may not go.

    Raises:
        KdpError: no such criterion, or the budget cannot be reached.
    """

    def __init__(
        self,
        settings: DynamicConfig,
        model: nn.Module,
        groups: Sequence[Group],
        gates: Mapping[str, Gate],
        costs: Mapping[str, float],
        count: MacCounter,
        mac_constraint: float,
        limits: Limits,
    ) -> None:
        self.settings, self.groups, self.costs, self.count = settings, groups, costs, count
        self.mac_constraint, self.limits = mac_constraint, limits
        self.importance = _criterion(settings.criterion)
        self.gated_groups = [_gated(model, g, gates[g.name], costs[g.name]) for g in groups]
        self._plan({g.name: torch.ones(g.units).double() for g in groups}, mac_constraint)

    @property
    def masks(self) -> Masks:
        """What stays at the moment."""
        return {gated.group.name: gated.gate.mask.cpu() for gated in self.gated_groups}

    @property
    def scores(self) -> Scores:
        """The importance that the last choice went by."""
        return {gated.group.name: gated.gate.score.cpu().clone() for gated in self.gated_groups}

    def mac_share(self) -> float:
        """Operations at the moment, of all."""
        kept = {name: int(mask.sum()) for name, mask in self.masks.items()}
        return self.count(kept) / self.count({g.name: g.units for g in self.groups})

    def sparsity_loss(self) -> Tensor:
        """The loss on the gates, unweighted; 0 where the settings name none."""
        if self.settings.loss is None:
            return self.gated_groups[0].gate.gate.new_zeros(())
        costs = [gated.cost for gated in self.gated_groups]
        return SPARSITY_LOSSES[self.settings.loss.kind](
            [gated.gate for gated in self.gated_groups], costs
        )

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Measure importance, and choose anew where it is time.

        Args:
            step: how many steps are done.
        """
        settings = self.settings
        if not settings.start_step - settings.period < step <= settings.end_step:
            return
        for gated in self.gated_groups:
            found = self.importance(gated).to(gated.gate.importance)
            if found.isfinite().all():  # mixed precision skips steps whose gradients overflow
                gated.gate.importance.add_(found)
                gated.gate.measured.add_(1)
        since = step - settings.start_step
        if since > 0 and (since % settings.period == 0 or step == settings.end_step):
            self._choose(
                cubic_schedule(step, settings.start_step, settings.end_step, self.mac_constraint)
            )

    def _choose(self, share: float) -> None:
        for gated in self.gated_groups:
            gate = gated.gate
            gate.score.copy_(gate.importance / gate.measured.clamp(min=1))
            gate.importance.zero_()
            gate.measured.zero_()
        scores = self.scores
        if not self.settings.regrowth:
            # Removed units go first: below every other one by importance per operation.
            least = min(float((scores[g.group.name] / g.cost).min()) for g in self.gated_groups)
            for gated in self.gated_groups:
                removed = ~gated.gate.mask.cpu()
                scores[gated.group.name][removed] = (least - 1) * gated.cost
        masks = self._plan(scores, share).masks
        for gated in self.gated_groups:
            mask, now = masks[gated.group.name].to(gated.gate.mask.device), gated.gate.mask
            now.copy_(mask if self.settings.regrowth else mask & now)

    def _plan(self, scores: dict[str, Tensor], share: float) -> PruningPlan:
        return plan_within_budget(self.groups, scores, self.costs, self.count, share, self.limits)


def _gated(model: nn.Module, group: Group, gate: Gate, cost: float) -> GatedGroup:
    params = dict(model.named_parameters())
    renamed = ".parametrizations.weight.original"  # where a gate sits, this group's or another's
    names = {
        key.replace(renamed, ".weight") if key.endswith(renamed) else key: key for key in params
    }
    weights = [(piece, params[names[piece.param]]) for piece in group.weight_slices]
    return GatedGroup(group, gate, weights, cost)


def _criterion(name: str) -> Callable[[GatedGroup], Tensor]:
    if name not in GATE_CRITERIA:
        raise KdpError(
            f"dynamic.criterion: no criterion is called {name!r}; {suggest(name, GATE_CRITERIA)}"
        )
    return GATE_CRITERIA[name]
