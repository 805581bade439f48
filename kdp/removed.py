"""The entries of weights that pruning set to zero, as a network's file lists them.

A reader without the masks checks by this list that what was removed stayed removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp.errors import KdpError

REMOVED = "removed"
"""Key of an artifact."""
Axis = tuple[str, int]
"""A parameter's name, and the dimension along which its entries are removed."""


def pack_removed(axes: Mapping[Axis, Tensor]) -> dict[str, Any]:
    """What a file stores.

    Args:
        axes: for each, which indices are removed: (length of the dimension,), boolean.
    """
    entries = torch.cat(list(axes.values())) if axes else torch.zeros(0, dtype=torch.bool)
    return {"axes": [[name, dim] for name, dim in axes], "entries": entries}


def check_still_removed(path: Path, params: Mapping[str, Tensor], stored: Any) -> None:
    """Make sure that every listed entry is zero.

    Args:
        path: of the file, for messages.
        params: its state dict.
        stored: its list, see `pack_removed`; None for none.

    Raises:
        KdpError: an entry is not zero, or the list does not fit the weights.
    """
    if stored is None:
        return
    try:
        name = _first_nonzero(params, stored)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise KdpError(f"{path} is damaged: its list of removed entries does not fit") from error
    if name is not None:
        raise KdpError(
            f"{path} has weights other than zero in removed units (see {name}): its weights were "
            "changed or are of another network; keep removed units at zero, or prune again"
        )


def _first_nonzero(params: Mapping[str, Tensor], stored: Mapping[str, Any]) -> str | None:
    lengths = [params[name].shape[dim] for name, dim in stored["axes"]]
    for (name, dim), removed in zip(stored["axes"], stored["entries"].split(lengths), strict=True):
        if params[name].index_select(dim, removed.nonzero().flatten()).any():
            return str(name)
    return None
