"""Zeros in weights, single ones and whole rows or columns of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Sparsity:
    """Zeros of one tensor.

    Attributes:
        name: its dotted name.
        shape: its sizes.
        elements: how many numbers it holds.
        zeros: how many of them are 0.
        zero_rows: of a matrix or a kernel, the outputs (first dimension) that are 0 throughout.
        zero_columns: the same for the inputs (second dimension).
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    zeros: int
    zero_rows: int
    zero_columns: int

    @property
    def layer(self) -> str:
        """The module that holds the tensor."""
        return self.name.rpartition(".")[0]


def sparsity_of(tensors: Mapping[str, Tensor]) -> list[Sparsity]:
    """The zeros of every tensor, in the order given."""
    return [_sparsity(name, tensor) for name, tensor in tensors.items()]


def total(parts: Iterable[Sparsity]) -> tuple[int, int]:
    """Elements and zeros of all together."""
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
