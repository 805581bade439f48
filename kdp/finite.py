"""Refusing numbers that are NaN or infinite: in files, and in the outputs of networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from kdp.errors import KdpError


def is_finite(tensor: Tensor) -> bool:
    """Whether every entry is finite; tensors of integers are."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # A sum takes one pass without a temporary. It may overflow, so that only a finite one decides.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def first_nonfinite(tensors: Mapping[str, Any]) -> str | None:
    """The name of the first tensor with a value that is not finite; None if there is none."""
    return next(
        (str(name) for name, t in tensors.items() if isinstance(t, Tensor) and not is_finite(t)),
        None,
    )


@contextmanager
def outputs_finite(model: nn.Module, name: str) -> Iterator[None]:
    """Check the outputs of a network, of every forward pass inside the block.

    Args:
        model: its forward returns tensors, also in sequences or mappings.
        name: of the network, begins the message.

    Raises:
        KdpError: an output is not finite.
    """

    def check(module: nn.Module, args: object, output: object) -> None:
        if not all(is_finite(tensor) for tensor in _tensors(output)):
            raise KdpError(f"{name}: the network's output is not finite (NaN or infinite)")

    handle = model.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)
