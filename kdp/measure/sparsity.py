"""Sparsity of weights: single zeros, and whole rows and columns of zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sparsity:
    """Zeros of one tensor.

    Attributes:
        name: dotted name.
        shape: sizes.
        elements: number of elements.
        zeros: number of zeros.
        zero_rows: outputs (first dimension) of a matrix or kernel that are entirely zero.
        zero_columns: inputs (second dimension) that are entirely zero.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    zeros: int
    zero_rows: int
    zero_columns: int

    @property
    def layer(self) -> str:
        """Name of the module that holds the tensor."""
        return self.name.rpartition(".")[0]


def sparsity_of(tensors: Mapping[str, Tensor]) -> list[Sparsity]:
    """Sparsity of every tensor, in order."""
    return [_sparsity(name, tensor) for name, tensor in tensors.items()]


def total(parts: Iterable[Sparsity]) -> tuple[int, int]:
    """Total numbers of elements and zeros."""
    pairs = [(part.elements, part.zeros) for part in parts]
    return sum(elements for elements, _ in pairs), sum(zeros for _, zeros in pairs)


def _sparsity(name: str, tensor: Tensor) -> Sparsity:
    zeros = tensor.numel() - int(tensor.count_nonzero())
    rows, columns = (_zero_slices(tensor, dim) for dim in (0, 1))
    return Sparsity(name, tuple(tensor.shape), tensor.numel(), zeros, rows, columns)


def _zero_slices(tensor: Tensor, dim: int) -> int:
    if tensor.ndim < 2 or not tensor.numel():
        return 0
    slices = tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1)
    return int((slices == 0).all(dim=1).sum())
