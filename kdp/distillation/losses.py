"""Distillation losses: how far what the student computes is from what its teacher computes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt, ValidationError
from torch import Tensor

from kdp.config import Section
from kdp.errors import KdpError

Pairs = Mapping[str, tuple[Tensor, Tensor]]
"""What is compared, by name of the place: (of the student, of the teacher)."""

_EPS = 1e-8


class Loss(Section):
    """One loss; its fields are the options that a configuration can give.

    Called with the pairs and a generator for all that is random in it; returns a scalar, the sum
    over the pairs. Gradients flow to the student.

    Attributes:
        compares: the outputs of the two networks, or their features at the taps.
    """

    compares: ClassVar[Literal["output", "features"]] = "features"

    def __call__(self, pairs: Pairs, random: torch.Generator) -> Tensor:
        """Compare every pair.

        Raises:
            KdpError: the shapes of a pair cannot be compared; names the place.
        """
        terms = [self.compare(place, *pair, random) for place, pair in pairs.items()]
        return torch.stack(terms).sum()

    def compare(
        self, place: str, student: Tensor, teacher: Tensor, random: torch.Generator
    ) -> Tensor:
        """The scalar loss at one place."""
        raise NotImplementedError


class FeatureLoss(Loss):
    """Mean absolute difference of features of equal shape, summed over the taps."""

    def compare(
        self, place: str, student: Tensor, teacher: Tensor, random: torch.Generator
    ) -> Tensor:
        if student.shape != teacher.shape:
            raise _mismatch(place, student, teacher)
        return F.l1_loss(_precise(student), _precise(teacher))


class OutputLoss(FeatureLoss):
    """Mean absolute difference of the outputs."""

    compares: ClassVar[Literal["output", "features"]] = "output"


class AffinityLoss(Loss):
    """FAKD (He et al., ICIP 2020): mean |A_s - A_t|, summed over the taps.

    A feature map (B, C, H, W) is normalised at every position over C; A = F^T F, (B, HW, HW),
    is the cosine similarity of all pairs of positions. C may differ between the networks.

    Attributes:
        sample: rows of A to compare, drawn anew at every call and shared by both networks; the
            expected loss is the exact one, in sample / HW of the memory. None, or HW and more:
            the exact form.
    """

    sample: PositiveInt | None = 256

    def compare(
        self, place: str, student: Tensor, teacher: Tensor, random: torch.Generator
    ) -> Tensor:
        same = student.shape[0] == teacher.shape[0] and student.shape[2:] == teacher.shape[2:]
        if student.ndim < 3 or not same:
            raise _mismatch(place, student, teacher)
        positions = student[0, 0].numel()
        rows = None
        if self.sample is not None and self.sample < positions:
            drawn = torch.randperm(positions, generator=random)[: self.sample]
            rows = drawn.to(student.device)
        return F.l1_loss(affinity(student, rows), affinity(teacher, rows))


def affinity(feature: Tensor, rows: Tensor | None = None) -> Tensor:
    """Cosine similarity between positions of a feature map.

    Args:
        feature: (B, C, ...), N positions in all.
        rows: (K,) positions to compare with all others; all of them where None.

    Returns:
        (B, K, N), or (B, N, N).
    """
    x_BCN = _precise(feature).flatten(2)
    unit_BCN: Tensor = x_BCN / (x_BCN.norm(dim=1, keepdim=True) + _EPS)
    unit_BCK = unit_BCN if rows is None else unit_BCN.index_select(2, rows)
    return unit_BCK.transpose(1, 2) @ unit_BCN


LOSSES: dict[str, type[Loss]] = {
    "output": OutputLoss,
    "feature": FeatureLoss,
    "fakd": AffinityLoss,
}


def make_loss(name: str, options: Mapping[str, Any]) -> Loss:
    """A loss of the table with its options.

    Raises:
        KdpError: no such loss, or an option it does not take.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(LOSSES)}"
        raise KdpError(f"distill.losses: no loss is called {name!r}; {hint}")
    try:
        return LOSSES[name].model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        known = ", ".join(LOSSES[name].model_fields) or "none"
        raise KdpError(
            f"distill.losses.{name}.options.{option}: {first['msg']} (options: {known})"
        ) from error


def _precise(feature: Tensor) -> Tensor:
    """At least single precision: features come in half under mixed precision."""
    return feature.to(torch.promote_types(feature.dtype, torch.float32))


def _mismatch(place: str, student: Tensor, teacher: Tensor) -> KdpError:
    shapes = f"{tuple(student.shape)} in the student and {tuple(teacher.shape)} in the teacher"
    return KdpError(f"cannot compare {place!r}: its shape is {shapes}")
