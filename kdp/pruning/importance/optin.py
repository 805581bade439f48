"""OPTIN: importance by the trajectory of features after the masked place.

Khaki & Plataniotis, "The Need for Speed: Pruning Transformers with One Recipe", ICLR 2024,
arXiv 2403.17921. Each unit is masked alone in an otherwise dense network; its importance is the
manifold distillation distance (arXiv 2107.01378) summed over the later taps, plus the distance of
the outputs. All rows enter the Gram matrices, so nothing is random and no score depends on
another.

Shape suffixes: U units, R rows (samples times positions), C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor

from kdp.pruning.groups import Group
from kdp.pruning.importance.base import RawScores, Scores, ScoringContext, UnitScorer
from kdp.pruning.replay import Replay, Trace

ROWS_AT_ONCE = 16384


def optin(context: ScoringContext, output_share: NonNegativeFloat = 1.0) -> UnitScorer:
    """Measure units by replay; the measurements are one per tap, zero before the gate, and the
    output's distance last.

    Args:
        output_share: used by `combine_optin` only.
    """
    inputs = context.task.inputs(context.batch)
    replay = Replay(context.model, context.groups, context.task.taps(context.model), inputs)
    dense = {name: normalized_rows(f, 1) for name, f in replay.dense.features.items()}
    positions = next(iter(replay.dense.features.values()))[:, 0].numel()
    at_once = max(ROWS_AT_ONCE // positions, 1)

    def measure(trace: Trace, count: int) -> Tensor:
        columns = []
        for name, reference in dense.items():
            if name in trace.features:
                rows = normalized_rows(trace.features[name], count)
                columns.append(manifold_distance(rows, reference))
            else:
                columns.append(trace.output.new_zeros(count))
        reference = replay.dense.output.repeat(count, *[1] * (replay.dense.output.ndim - 1))
        distance = context.task.output_distance(trace.output, reference)
        return torch.stack([*columns, distance.view(count, -1).mean(1)], dim=1)

    def score(group: Group) -> Tensor:
        starts = range(0, group.units, at_once)
        batches = [range(i, min(i + at_once, group.units)) for i in starts]
        return torch.cat(
            [measure(replay.without(group, u), len(u)).double().cpu() for u in batches]
        )

    return score


def combine_optin(parts: RawScores, output_share: NonNegativeFloat = 1.0) -> Scores:
    """Trajectory plus output term, the latter scaled to `output_share` times the mean trajectory.

    One factor for all units, taken after all were measured: the order does not matter.
    """
    everything = torch.cat(list(parts.values()))
    trajectory, output = everything[:, :-1].sum(1).mean(), everything[:, -1].mean()
    weight = output_share * trajectory / output if output > 0 else torch.zeros(())
    return {name: p[:, :-1].sum(1) + weight * p[:, -1] for name, p in parts.items()}


def normalized_rows(feature: Tensor, count: int) -> Tensor:
    """Features as rows of unit length: (U*B, C, ...) maps or (U*B, N, C) tokens -> (U, R, C)."""
    if feature.ndim != 3:
        feature = feature.flatten(2).transpose(1, 2) if feature.ndim > 2 else feature[:, None]
    return F.normalize(feature, dim=-1).reshape(count, -1, feature.shape[-1])


def manifold_distance(student_URC: Tensor, teacher_1RC: Tensor) -> Tensor:
    """Mean squared difference of the Gram matrices of all rows: (U,).

    With D = S - T, S S' - T T' = T D' + D S', whose squared norm needs only C x C products:
    tr(T'T D'D) + tr(D'D S'S) + 2 tr(T'D S'D). No two large numbers are subtracted.
    """
    s, t = student_URC, teacher_1RC.expand_as(student_URC)
    d = s - t
    tt, ss, dd = (x.transpose(1, 2) @ x for x in (t[:1], s, d))
    td, sd = t.transpose(1, 2) @ d, s.transpose(1, 2) @ d
    total = (tt * dd).sum((1, 2)) + (dd * ss).sum((1, 2))
    total = total + 2 * (td * sd.transpose(1, 2)).sum((1, 2))
    return total.clamp(min=0) / s.shape[1] ** 2
