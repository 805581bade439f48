"""Putting the state in a checkpoint back into the objects of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kdp.errors import KdpError, first_line
from kdp.training.job import Params

ADAM, SGD = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}
"""What the optimizers keep for each parameter."""


def restore_parts(path: Path, parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Load the state of every part, in place.

    Args:
        path: of the checkpoint, for messages.
        parts: by the keys of the checkpoint.
        state: see `kdp.tensor_contents.TrainingContent`.

    Raises:
        KdpError: a part has other parameters or settings than its state.
    """
    for name, part in parts.items():
        try:
            if name == "optimizer":
                _restore_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])
        except Exception as error:  # torch raises nearly anything for a state of another kind
            raise _does_not_fit(path, name, first_line(error)) from error


def check_best(path: Path, best: Params, params: Params) -> None:
    """Make sure that the weights of the best validation are those of this network.

    Args:
        path: of the checkpoint, for messages.
        best: empty if there was no validation.
        params: of the network.

    Raises:
        KdpError: a weight is missing, unknown or has another shape.
    """
    shapes = {name: tensor.shape for name, tensor in params.items()}
    if best and {name: tensor.shape for name, tensor in best.items()} != shapes:
        raise _does_not_fit(path, "best", "weights of another network")


def _does_not_fit(path: Path, name: str, reason: str) -> KdpError:
    again = "start over with --overwrite"
    return KdpError(f"{path} is damaged: its {name} does not fit this run ({reason}); {again}")


def _restore_optimizer(optimizer: Any, state: Mapping[str, Any]) -> None:
    before = [_settings(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    if [_settings(group) for group in optimizer.param_groups] != before:
        raise ValueError("it has other settings")
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # A parameter that has had no gradient yet has no state.
            if moments := optimizer.state.get(parameter):
                _check_moments(parameter, moments, SGD if "momentum" in group else ADAM)


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """All that a group of parameters does not change during a training."""
    return {key: value for key, value in group.items() if key not in ("params", "lr")}


def _check_moments(parameter: Tensor, moments: Mapping[str, Any], names: set[str]) -> None:
    """torch compares neither names nor shapes, and fails in the next step."""
    if moments.keys() != names:
        raise ValueError(f"it has {', '.join(moments)} instead of {', '.join(sorted(names))}")
    for name, value in moments.items():
        shape = () if name == "step" else parameter.shape
        if value is not None and (not isinstance(value, Tensor) or value.shape != shape):
            raise ValueError(f"{name} has another shape than its parameter")
