"""Distillation losses: how far what the student computes is from what its teacher computes.

A loss is a function of one pair of tensors (student, teacher) that returns a scalar, and a line
in `LOSSES`. Its keyword-only parameters are the options that a configuration can give; one called
`random` is handed the generator of the step, and `weights` those of the positions. Gradients flow
to the student.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from kdp.config.options import checked_options
from kdp.errors import KdpError, suggest

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""What is compared, by name of the place: (of the student, of the teacher)."""

_EPS = 1e-8


@dataclass(frozen=True)
class DistillationLoss:
    """An entry of the table.

    Attributes:
        compute: (student, teacher, *, options) -> scalar.
        compares: the outputs of the two networks, or their features at the taps.
        any_width: the number of channels (dimension 1) may differ between the two; where it may
            not, features of another width are aligned (see `kdp.distillation.alignment`).
        projected: the student's features pass a `Projection` of that module instead.
        weighted: `compute` takes `weights`, (B, positions): how sure the teacher is there.
    """

    compute: Callable[..., Tensor]
    compares: Literal["output", "features"]
    any_width: bool = False
    projected: bool = False
    weighted: bool = False


@dataclass(frozen=True)
class BoundLoss:
    """A loss of the table with its options."""

    loss: DistillationLoss
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, pairs: Pairs, random: torch.Generator, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The sum over the pairs, in single precision at least.

        Args:
            pairs: what is compared.
            random: what a loss draws by.
            weights: of the positions, by place, for a loss that is weighted.

        Raises:
            KdpError: the shapes of a pair cannot be compared; names the place.
        """
        options, terms = dict(self.options), []
        if "random" in inspect.signature(self.loss.compute).parameters:
            options["random"] = random
        for place, (student, teacher) in pairs.items():
            self._check(place, student, teacher)
            if self.loss.weighted and weights:
                options["weights"] = weights[place]
            terms.append(self.loss.compute(precise(student), precise(teacher), **options))
        return torch.stack(terms).sum()

    def _check(self, place: str, student: Tensor, teacher: Tensor) -> None:
        mine, wanted = list(student.shape), list(teacher.shape)
        if self.loss.any_width:
            if min(len(mine), len(wanted)) < 3:
                raise KdpError(f"cannot compare {place!r}: a map with positions is needed")
            del mine[1], wanted[1]
        if mine != wanted:
            shapes = (
                f"{tuple(student.shape)} in the student and {tuple(teacher.shape)} in the teacher"
            )
            raise KdpError(f"cannot compare {place!r}: its shape is {shapes}")


def mean_absolute(student: Tensor, teacher: Tensor) -> Tensor:
    """L1: the mean absolute difference."""
    return F.l1_loss(student, teacher)


def affinity_transfer(
    student: Tensor, teacher: Tensor, *, random: torch.Generator, sample: PositiveInt | None = 256
) -> Tensor:
    """FAKD (He et al., ICIP 2020): mean |A_s - A_t| over all pairs of positions.

    A feature map (B, C, H, W) is normalised at every position over C; A = F^T F, (B, HW, HW),
    is the cosine similarity of all pairs of positions.

    Args:
        student, teacher: (B, C, ...), of any C each.
        random: draws the sample.
        sample: rows of A to compare, drawn anew at every step and shared by both networks; the
            expected loss is the exact one, in sample / HW of the memory. None, or HW and more:
            the exact form.
    """
    positions, rows = student[0, 0].numel(), None
    if sample is not None and sample < positions:
        rows = torch.randperm(positions, generator=random)[:sample].to(student.device)
    return F.l1_loss(affinity(student, rows), affinity(teacher, rows))


def affinity(feature: Tensor, rows: Tensor | None = None) -> Tensor:
    """Cosine similarity between positions of a feature map.

    Args:
        feature: (B, C, ...), N positions in all.
        rows: (K,) positions to compare with all others; all of them where None.

    Returns:
        (B, K, N), or (B, N, N).
    """
    x_BCN = feature.flatten(2)
    unit_BCN: Tensor = x_BCN / (x_BCN.norm(dim=1, keepdim=True) + _EPS)
    unit_BCK = unit_BCN if rows is None else unit_BCN.index_select(2, rows)
    return unit_BCK.transpose(1, 2) @ unit_BCN


def attention_transfer(student: Tensor, teacher: Tensor, *, p: PositiveFloat = 2.0) -> Tensor:
    """Attention transfer (Zagoruyko and Komodakis 2017): ||A_t - A_s||_2 / N of one layer.

    The attention map of a picture, A = sum_c |F_c|^p, is divided by its L2 norm over the
    positions; the norm of the difference is over the whole batch of N.

    Args:
        student, teacher: (N, C, ...), of any C each.
        p: the power.
    """
    difference = attention_map(teacher, p) - attention_map(student, p)
    return torch.linalg.vector_norm(difference) / len(student)


def attention_map(feature: Tensor, p: float) -> Tensor:
    """Where a layer looks: (N, C, ...) -> (N, positions), of L2 norm 1."""
    a_NP = feature.abs().pow(p).sum(1).flatten(1)
    return a_NP / (a_NP.norm(dim=1, keepdim=True) + _EPS)


def logits(student: Tensor, teacher: Tensor, *, temperature: PositiveFloat = 4.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al. 2015).

    Args:
        student, teacher: (B, classes, ...); the mean is over the rest of the dimensions.
        temperature: T.
    """
    log_s, log_t = (F.log_softmax(x / temperature, dim=1) for x in (student, teacher))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()


def score_weighted(student: Tensor, teacher: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Squared difference of features where the teacher sees something, as Ultralytics distils.

    Source: its `DistillationModel` (8.4), which weights it by 6 and taps what the head reads.

    Args:
        student, teacher: (B, C, ...).
        weights: (B, positions), the teacher's greatest probability there; all equal where None.
    """
    squared_BP = (student - teacher).square().mean(1).flatten(1)
    weights_BP = torch.ones_like(squared_BP) if weights is None else weights
    # Ultralytics adds this to the sum over the channels too.
    return (squared_BP * weights_BP).sum() / (weights_BP.sum() + 1e-9 / student.shape[1])


LOSSES: dict[str, DistillationLoss] = {
    "output": DistillationLoss(mean_absolute, compares="output"),
    "logits": DistillationLoss(logits, compares="output"),
    "feature": DistillationLoss(mean_absolute, compares="features"),
    "fakd": DistillationLoss(affinity_transfer, compares="features", any_width=True),
    "attention_transfer": DistillationLoss(attention_transfer, compares="features", any_width=True),
    "score_weighted": DistillationLoss(
        score_weighted, compares="features", projected=True, weighted=True
    ),
}


def make_loss(name: str, options: Mapping[str, Any]) -> BoundLoss:
    """A loss of the table with its options.

    Raises:
        KdpError: no such loss, or an option it does not take.
    """
    if name not in LOSSES:
        raise KdpError(f"distill.losses: no loss is called {name!r}; {suggest(name, LOSSES)}")
    compute, key = LOSSES[name].compute, f"distill.losses.{name}.options"
    return BoundLoss(LOSSES[name], checked_options(compute, options, key, given={"weights"}))


def precise(feature: Tensor) -> Tensor:
    """At least single precision: features come in half under mixed precision."""
    return feature.to(torch.promote_types(feature.dtype, torch.float32))
