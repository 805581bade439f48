"""Learned layers that bring a student's features to the width of its teacher's.

They are trained together with the student, are not part of it, and are dropped after training.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Widths = Mapping[str, int]
"""Name of a tap in the student -> channels (dimension 1) of the feature there."""


class Alignment(nn.Module):
    """Projects a student's feature to the teacher's width and normalizes both.

    The student's feature goes through a 1x1 convolution and a BatchNorm without affine
    parameters. The teacher's goes through such a BatchNorm alone: a normalized feature cannot
    match the teacher's own scale and offset, which would remain as a constant error.

    Args:
        width: channels of the student's feature.
        teacher_width: channels of the teacher's feature.
    """

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.project = nn.Conv1d(width, teacher_width, 1, bias=False)
        self.norm = nn.BatchNorm1d(teacher_width, affine=False)

    def forward(
        self, student: Tensor, teacher: Tensor, student_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Align a pair of features.

        Args:
            student: (B, width, ...).
            teacher: (B, teacher_width, ...).
            student_only: leave the teacher's feature as it is.

        Returns:
            Both, (B, teacher_width, ...). Features of different sizes are returned unchanged:
            the loss refuses them with a message that names the tap.
        """
        if student.shape[2:] != teacher.shape[2:]:
            return student, teacher
        aligned = self.norm(self.project(_positions(student)))
        if student_only:
            return aligned.view_as(teacher), teacher
        # Batch statistics, as the student's in training; the teacher needs no running ones.
        normalized = F.batch_norm(_positions(teacher), None, None, training=True, eps=self.norm.eps)
        return aligned.view_as(teacher), normalized.view_as(teacher)


def _positions(feature: Tensor) -> Tensor:
    """(B, C, ...) or (B, C) -> (B, C, positions)."""
    return feature.reshape(*feature.shape[:2], -1)


class Alignments(nn.Module):
    """One `Alignment` for every tap whose width differs from the teacher's.

    Args:
        widths: of the student's features.
        teacher_widths: of the teacher's features, by the student's tap.
        every_tap: add one for the taps of equal width too.
    """

    def __init__(self, widths: Widths, teacher_widths: Widths, every_tap: bool = False) -> None:
        super().__init__()
        self.unequal = {name for name in widths if widths[name] != teacher_widths[name]}
        self.numbers = {
            name: str(number)
            for number, name in enumerate(widths)
            if every_tap or name in self.unequal
        }
        # Keys are numbers: names of modules contain dots, which ModuleDict does not allow.
        self.aligned = nn.ModuleDict(
            {key: Alignment(widths[n], teacher_widths[n]) for n, key in self.numbers.items()}
        )

    def forward(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Align the pairs (student, teacher) of unequal width; pass on the others unchanged."""
        return {
            name: self.aligned[self.numbers[name]](*pair) if name in self.unequal else pair
            for name, pair in pairs.items()
        }

    def align_students(
        self, pairs: Mapping[str, tuple[Tensor, Tensor]]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Align every student's feature; leave the teacher's as they are."""
        return {
            name: self.aligned[self.numbers[name]](*pair, student_only=True)
            for name, pair in pairs.items()
        }


class Projections(nn.Module):
    """For every tap two 1x1 convolutions with a ReLU between them, to the teacher's width.

    Args:
        widths: of the student's features.
        teacher_widths: of the teacher's features, by the student's tap.
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
        """Project every student's feature; leave the teacher's as they are."""
        result = {}
        for name, (student, teacher) in pairs.items():
            projected = self.projected[self.numbers[name]](_positions(student))
            result[name] = projected.view(len(student), -1, *student.shape[2:]), teacher
        return result


def _projection(width: int, teacher_width: int) -> nn.Module:
    first, second = nn.Conv1d(width, teacher_width, 1), nn.Conv1d(teacher_width, teacher_width, 1)
    return nn.Sequential(first, nn.ReLU(), second)


@torch.no_grad()
def widths_of(features: Mapping[str, Tensor]) -> dict[str, int]:
    """Channels of each feature."""
    return {name: feature.shape[1] for name, feature in features.items()}
