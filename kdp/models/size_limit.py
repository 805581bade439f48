"""A limit on the size of networks while they are built on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from kdp.node_count import TooLargeError

MAX_ELEMENTS = 250_000_000
"""Numbers in parameters and buffers: 1 GB in float32, of which a training needs four."""
MAX_PARTS = 4_000
"""Parameters, buffers and modules; the largest network of kdp has fewer than 2,000."""


@contextmanager
def limit_size() -> Iterator[None]:
    """Stop the construction of a network that becomes too large, at the part that is too much.

    Raises:
        TooLargeError: it has too many numbers, or too many parts.
    """
    elements = parts = 0

    def add(module: Any, name: str, part: Any) -> None:
        nonlocal elements, parts
        parts += 1
        if isinstance(part, Tensor):
            elements += part.numel()
        if elements > MAX_ELEMENTS:
            raise TooLargeError(f"it has more than {MAX_ELEMENTS:,} parameters")
        if parts > MAX_PARTS:
            raise TooLargeError(f"it has more than {MAX_PARTS:,} parts")

    handles = [
        register_module_parameter_registration_hook(add),
        register_module_buffer_registration_hook(add),
        register_module_module_registration_hook(add),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
