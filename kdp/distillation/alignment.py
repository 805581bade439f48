"""Comparing features of networks that differ in width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Widths = Mapping[str, int]
"""Channels (dimension 1) of a feature, by the name of its tap."""


class Alignment(nn.Module):
    """Brings a student's feature to its teacher's width, and both to one scale.

    The student's goes through a 1x1 convolution and a BatchNorm without affine parameters; the
    teacher's through such a BatchNorm alone, for a normalised feature can only be like a
    normalised one. It learns with the student and is no part of it.

    Args:
        width, teacher_width: channels of the two features.
    """

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.project = nn.Conv1d(width, teacher_width, 1, bias=False)
        self.norm = nn.BatchNorm1d(teacher_width, affine=False)

    def forward(
        self, student: Tensor, teacher: Tensor, alone: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(B, width, ...), (B, teacher_width, ...) -> both (B, teacher_width, ...).

        Args:
            student, teacher: the features.
            alone: leave the teacher's as it is.
        """
        if student.shape[2:] != teacher.shape[2:]:
            return student, teacher  # what compares them says what is wrong
        aligned = self.norm(self.project(_positions(student)))
        if alone:
            return aligned.view_as(teacher), teacher
        normal = F.batch_norm(_positions(teacher), None, None, training=True, eps=self.norm.eps)
        return aligned.view_as(teacher), normal.view_as(teacher)


def _positions(feature: Tensor) -> Tensor:
    """(B, C, ...) or (B, C) -> (B, C, positions)."""
    return feature.reshape(*feature.shape[:2], -1)


class Alignments(nn.Module):
    """An `Alignment` for every tap whose width differs from the teacher's.

    Args:
        widths: of the student's features.
        teacher_widths: of the teacher's, by the student's names.
        every: one for the taps of equal width too.
    """

    def __init__(self, widths: Widths, teacher_widths: Widths, every: bool = False) -> None:
        super().__init__()
        self.unequal = {name for name in widths if widths[name] != teacher_widths[name]}
        self.numbers = {
            name: str(number) for number, name in enumerate(widths) if every or name in self.unequal
        }
        self.aligned = nn.ModuleDict(
            {key: Alignment(widths[n], teacher_widths[n]) for n, key in self.numbers.items()}
        )

    def forward(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The pairs (student, teacher), those of unequal width aligned."""
        return {
            name: self.aligned[self.numbers[name]](*pair) if name in self.unequal else pair
            for name, pair in pairs.items()
        }

    def students(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The pairs with every feature of the student aligned and the teacher's as they are."""
        return {
            name: self.aligned[self.numbers[name]](*pair, alone=True)
            for name, pair in pairs.items()
        }


class Projections(nn.Module):
    """Two 1x1 convolutions with a ReLU between them, to the teacher's width, for every tap.

    Args:
        widths: of the student's features.
        teacher_widths: of the teacher's, by the student's names.
    """

    def __init__(self, widths: Widths, teacher_widths: Widths) -> None:
        super().__init__()
        self.numbers = {name: str(number) for number, name in enumerate(widths)}
        self.projected = nn.ModuleDict(
            {key: _projection(widths[n], teacher_widths[n]) for n, key in self.numbers.items()}
        )

    def forward(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """The pairs with every feature of the student projected and the teacher's as they are."""
        result = {}
        for name, (student, teacher) in pairs.items():
            moved = self.projected[self.numbers[name]](_positions(student))
            result[name] = moved.view(len(student), -1, *student.shape[2:]), teacher
        return result


def _projection(width: int, teacher_width: int) -> nn.Module:
    first, second = nn.Conv1d(width, teacher_width, 1), nn.Conv1d(teacher_width, teacher_width, 1)
    return nn.Sequential(first, nn.ReLU(), second)


@torch.no_grad()
def widths_of(features: Mapping[str, Tensor]) -> dict[str, int]:
    """Channels of features."""
    return {name: feature.shape[1] for name, feature in features.items()}
