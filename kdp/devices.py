"""Where to compute."""

from __future__ import annotations

import torch
from torch import nn

from kdp.errors import KdpError, first_line


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        KdpError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise KdpError(f"device {name!r} is not usable here: {first_line(error)}") from error


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU where it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
