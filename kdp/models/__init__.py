"""The networks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.models.catanet import CATANet, infer_args
from kdp.models.mask_classifier import MaskClassifier

MODELS: dict[str, Callable[..., nn.Module]] = {
    "catanet": CATANet,
    "mask_classifier": MaskClassifier,
}
INFER: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any] | None]] = {"catanet": infer_args}
"""Arguments of a network read off foreign weights; None where they are of another network."""


def build(name: str, **args: Any) -> nn.Module:
    """A new network of the table, in training mode.

    Raises:
        KdpError: no such network, or arguments it does not take.
    """
    if name not in MODELS:
        raise KdpError(f"no network is called {name!r}; there are: {', '.join(sorted(MODELS))}")
    try:
        return MODELS[name](**args)
    except (TypeError, ValueError) as error:
        raise KdpError(f"cannot build {name!r}: {error}") from error
