"""Distillation losses: how far the student's tensors are from the teacher's.

A loss is a function of two tensors (student, teacher) that returns a scalar, and one line in
`LOSSES`. Its keyword-only parameters are the options of the configuration, except for `random`
(the generator of the step) and `weights` (one per position). Gradients flow to the student only;
teachers run without them.
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
"""Name of a tap (or "output") -> the tensors to compare, (student, teacher)."""

_EPS = 1e-8


@dataclass(frozen=True)
class DistillationLoss:
    """An entry of `LOSSES`.

    Attributes:
        compute: (student, teacher, *, options) -> scalar.
        compares: the outputs of the networks, or their features at the taps.
        any_width: the numbers of channels (dimension 1) may differ. Without it, features of
            another width are aligned first (see `kdp.distillation.alignment`).
        projected: the student's features pass two 1x1 convolutions first (`Projections` there).
        weighted: `compute` takes `weights`, (B, positions): the teacher's confidence.
    """

    compute: Callable[..., Tensor]
    compares: Literal["output", "features"]
    any_width: bool = False
    projected: bool = False
    weighted: bool = False


@dataclass(frozen=True)
class BoundLoss:
    """A loss with its options."""

    loss: DistillationLoss
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, pairs: Pairs, random: torch.Generator, weights: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """The sum of the loss over the pairs, a scalar of at least float32.

        Args:
            pairs: the tensors to compare.
            random: for losses that draw a sample.
            weights: (B, positions) by tap, for losses that are weighted.

        Raises:
            KdpError: the shapes of a pair do not fit; the message names the tap.
        """
        options, terms = dict(self.options), []
        if "random" in inspect.signature(self.loss.compute).parameters:
            options["random"] = random
        for name, (student, teacher) in pairs.items():
            self._check_shapes(name, student, teacher)
            if self.loss.weighted and weights:
                options["weights"] = weights[name]
            terms.append(
                self.loss.compute(at_least_float32(student), at_least_float32(teacher), **options)
            )
        return torch.stack(terms).sum()

    def _check_shapes(self, name: str, student: Tensor, teacher: Tensor) -> None:
        student_shape, teacher_shape = list(student.shape), list(teacher.shape)
        if self.loss.any_width:
            if min(len(student_shape), len(teacher_shape)) < 3:
                raise KdpError(f"cannot compare {name!r}: this loss needs a map with positions")
            del student_shape[1], teacher_shape[1]
        if student_shape != teacher_shape:
            raise KdpError(
                f"cannot compare {name!r}: its shape is {tuple(student.shape)} in the student and "
                f"{tuple(teacher.shape)} in the teacher"
            )


def mean_absolute(student: Tensor, teacher: Tensor) -> Tensor:
    """L1 loss: the mean absolute difference."""
    return F.l1_loss(student, teacher)


def mean_squared(student: Tensor, teacher: Tensor) -> Tensor:
    """L2 loss: the mean squared difference."""
    return F.mse_loss(student, teacher)


def affinity_transfer(
    student: Tensor, teacher: Tensor, *, random: torch.Generator, sample: PositiveInt | None = 256
) -> Tensor:
    """FAKD: mean |A_s - A_t| over all pairs of positions (He et al., ICIP 2020).

    A feature map (B, C, H, W) is normalized over C at every position; the affinity matrix
    A = F^T F, (B, HW, HW), holds the cosine similarities of all pairs of positions.

    Args:
        student, teacher: (B, C, ...); C may differ.
        random: draws the sample.
        sample: rows of A to compare, resampled at every step and shared by both networks. The
            expected loss is the exact one, at sample / HW of the memory. None, or at least HW:
            all rows.
    """
    positions, rows = student[0, 0].numel(), None
    if sample is not None and sample < positions:
        # Drawn on the CPU, so that the sample does not depend on the device.
        rows = torch.randperm(positions, generator=random)[:sample].to(student.device)
    return F.l1_loss(affinity(student, rows), affinity(teacher, rows))


def affinity(feature: Tensor, rows: Tensor | None = None) -> Tensor:
    """Cosine similarities between the positions of a feature map.

    Args:
        feature: (B, C, ...), with N positions.
        rows: (K,), the positions to compare with all others; all if None.

    Returns:
        (B, K, N), or (B, N, N).
    """
    # Sampled rows against all positions, (K, N): the sample shrinks one side of the matrix only,
    # and every position still gets a gradient.
    x_BCN = feature.flatten(2)
    unit_BCN: Tensor = x_BCN / (x_BCN.norm(dim=1, keepdim=True) + _EPS)
    unit_BCK = unit_BCN if rows is None else unit_BCN.index_select(2, rows)
    return unit_BCK.transpose(1, 2) @ unit_BCN


def attention_transfer(student: Tensor, teacher: Tensor, *, p: PositiveFloat = 2.0) -> Tensor:
    """Attention transfer: ||A_t - A_s||_2 / B of one layer (Zagoruyko and Komodakis, ICLR 2017).

    The attention map of an image, A = sum_c |F_c|^p, is divided by its L2 norm over the positions.
    The norm of the difference is taken over the whole batch of B images.

    Args:
        student, teacher: (B, C, ...); C may differ.
        p: power of the activations.
    """
    # One norm over the whole batch, not the mean of one norm per image, which is up to sqrt(B)
    # times as large and would need another weight.
    difference = attention_map(teacher, p) - attention_map(student, p)
    return torch.linalg.vector_norm(difference) / len(student)


def attention_map(feature: Tensor, p: float) -> Tensor:
    """Where a layer is active: (B, C, ...) -> (B, positions), with L2 norm 1."""
    a_BP = feature.abs().pow(p).sum(1).flatten(1)
    return a_BP / (a_BP.norm(dim=1, keepdim=True) + _EPS)


def logits(student: Tensor, teacher: Tensor, *, temperature: PositiveFloat = 4.0) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al. 2015).

    The factor T^2 keeps the gradient's size independent of the temperature.

    Args:
        student, teacher: (B, classes, ...); the mean is taken over all other dimensions.
        temperature: T.
    """
    # By log-probabilities: log(softmax) underflows for classes that the student rules out.
    log_s, log_t = (F.log_softmax(x / temperature, dim=1) for x in (student, teacher))
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()


def score_weighted(student: Tensor, teacher: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Squared difference of features, weighted by the teacher's confidence at each position.

    For networks with a confidence at each position; the family that has one names the source.

    Args:
        student, teacher: (B, C, ...).
        weights: (B, positions), the teacher's highest class probability; all 1 if None.
    """
    squared_BP = (student - teacher).square().mean(1).flatten(1)
    weights_BP = torch.ones_like(squared_BP) if weights is None else weights
    # The published loss adds 1e-9 to a sum over positions and channels, hence the division.
    return (squared_BP * weights_BP).sum() / (weights_BP.sum() + 1e-9 / student.shape[1])


LOSSES: dict[str, DistillationLoss] = {
    "output": DistillationLoss(mean_absolute, compares="output"),
    "logits": DistillationLoss(logits, compares="output"),
    "feature": DistillationLoss(mean_absolute, compares="features"),
    "feature_l2": DistillationLoss(mean_squared, compares="features"),
    "fakd": DistillationLoss(affinity_transfer, compares="features", any_width=True),
    "attention_transfer": DistillationLoss(attention_transfer, compares="features", any_width=True),
    "score_weighted": DistillationLoss(
        score_weighted, compares="features", projected=True, weighted=True
    ),
}


def make_loss(name: str, options: Mapping[str, Any]) -> BoundLoss:
    """A loss with its options.

    Args:
        name: a key of `LOSSES`.
        options: `distill.losses.<name>.options` of the configuration.

    Raises:
        KdpError: there is no such loss, or it does not take these options.
    """
    if name not in LOSSES:
        raise KdpError(f"distill.losses: unknown loss {name!r}; {suggest(name, LOSSES)}")
    compute, key = LOSSES[name].compute, f"distill.losses.{name}.options"
    return BoundLoss(LOSSES[name], checked_options(compute, options, key, given={"weights"}))


def at_least_float32(feature: Tensor) -> Tensor:
    """Cast half-precision features of mixed precision to float32; leave others as they are."""
    return feature.to(torch.promote_types(feature.dtype, torch.float32))
