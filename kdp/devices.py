"""Choice of the device to compute on."""

from __future__ import annotations

import torch
from torch import nn

from kdp.errors import KdpError, first_line


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" picks a GPU if there is one.

    Raises:
        KdpError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise KdpError(f"device {name!r} is not usable here: {first_line(error)}") from error


def device_of(model: nn.Module) -> torch.device:
    """Device of a network's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
