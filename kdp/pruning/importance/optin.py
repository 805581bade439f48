"""OPTIN: importance from the trajectory of features behind the masked unit.

Khaki & Plataniotis, "The Need for Speed: Pruning Transformers with One Recipe", ICLR 2024,
arXiv 2403.17921. Each unit is masked alone in an otherwise dense network. Its importance is the
manifold distillation distance (Hao et al., NeurIPS 2022, arXiv 2107.01378) summed over the taps
behind it, plus the distance of the outputs. All rows enter the Gram matrices instead of a sample,
so nothing is random and no score depends on another.

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
"""Rows of the first tap in one batch of masked passes; bounds the memory."""


def optin(context: ScoringContext, output_share: NonNegativeFloat = 1.0) -> UnitScorer:
    """Measure units by replaying the network without each of them.

    Args:
        context: network, taps and calibration batch.
        output_share: used by `combine_optin` only.

    Returns:
        A scorer with one measurement per tap, in order of execution (zero for taps before the
        unit), and the output distance last.
    """
    inputs = context.task.inputs(context.batch)
    replay = Replay(context.model, context.groups, context.task.taps(context.model), inputs)
    dense = {name: normalized_rows(f, 1) for name, f in replay.dense.features.items()}
    rows_per_unit = next(iter(replay.dense.features.values()))[:, 0].numel()
    units_at_once = max(ROWS_AT_ONCE // rows_per_unit, 1)

    def measure(group: Group, units: range) -> Tensor:
        trace, count = replay.without(group, units), len(units)
        reference = replay.dense.output.repeat(count, *[1] * (replay.dense.output.ndim - 1))
        distance = context.task.output_distance(trace.output, reference)
        trajectory = _trajectory(trace, dense, count)
        context.report(count)
        return torch.stack([*trajectory, distance.view(count, -1).mean(1)], dim=1)

    def score(group: Group) -> Tensor:
        starts = range(0, group.units, units_at_once)
        batches = [range(i, min(i + units_at_once, group.units)) for i in starts]
        return torch.cat([measure(group, units).double().cpu() for units in batches])

    return score


def _trajectory(trace: Trace, dense: dict[str, Tensor], count: int) -> list[Tensor]:
    """Distance of each tap's feature from the dense one, (U,) per tap.

    Args:
        trace: a pass without each of U units.
        dense: normalized rows of the dense pass, (1, R, C) by tap.
        count: U.
    """
    distances = []
    for name, reference in dense.items():
        if name in trace.features:
            rows = normalized_rows(trace.features[name], count)
            distances.append(manifold_distance(rows, reference))
        else:  # the tap ends before the mask point: its feature cannot change
            distances.append(trace.output.new_zeros(count))
    return distances


def combine_optin(parts: RawScores, output_share: NonNegativeFloat = 1.0) -> Scores:
    """Trajectory plus output distance.

    The two have different units, so the output distance is scaled to `output_share` times the
    mean trajectory. The factor is the same for all units and taken after all were measured:
    scores do not depend on the order of the groups.

    Args:
        parts: measurements of `optin`, by group.
        output_share: 0 leaves the output out.
    """
    all_units = torch.cat(list(parts.values()))
    trajectory, output = all_units[:, :-1].sum(1).mean(), all_units[:, -1].mean()
    weight = output_share * trajectory / output if output > 0 else torch.zeros(())
    return {name: p[:, :-1].sum(1) + weight * p[:, -1] for name, p in parts.items()}


def normalized_rows(feature: Tensor, count: int) -> Tensor:
    """Features as one row of unit length per position.

    Args:
        feature: (U * B, C, ...) maps, (U * B, N, C) tokens or (U * B, C) vectors.
        count: U.

    Returns:
        (U, R, C).
    """
    if feature.ndim != 3:
        feature = feature.flatten(2).transpose(1, 2) if feature.ndim > 2 else feature[:, None]
    return F.normalize(feature, dim=-1).reshape(count, -1, feature.shape[-1])


def manifold_distance(student_URC: Tensor, teacher_1RC: Tensor) -> Tensor:
    """Mean squared difference of the Gram matrices of all rows (arXiv 2107.01378).

    ||S S' - T T'||^2 / R^2 is computed without the R x R matrices, which do not fit into memory
    for image positions.

    Args:
        student_URC: rows of unit length, per unit.
        teacher_1RC: rows of the dense network.

    Returns:
        (U,).
    """
    s, t = student_URC, teacher_1RC.expand_as(student_URC)
    # The textbook form ||S'S||^2 - 2 ||S'T||^2 + ||T'T||^2 subtracts numbers of size R^2 that agree
    # in almost all digits, because one unit changes little. With D = S - T, and therefore
    # S S' - T T' = T D' + D S', every term is as small as the result:
    #   tr(T'T D'D) + tr(D'D S'S) + 2 tr(T'D S'D), products of C x C matrices.
    d = s - t
    tt, ss, dd = (x.transpose(1, 2) @ x for x in (t[:1], s, d))
    td, sd = t.transpose(1, 2) @ d, s.transpose(1, 2) @ d
    total = (tt * dd).sum((1, 2)) + (dd * ss).sum((1, 2))
    total = total + 2 * (td * sd.transpose(1, 2)).sum((1, 2))
    return total.clamp(min=0) / s.shape[1] ** 2  # rounding may leave a tiny negative number
