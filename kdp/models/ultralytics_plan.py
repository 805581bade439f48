"""Checking that a stored network computes what Ultralytics' definition of YOLO11 computes.

kdp takes the weights of a file and computes with its own network. Weights alone do not show another
activation, stride, padding or upsampling, which change every box.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.models.safe_unpickle import OpaqueObject, StoredTensor
from kdp.models.ultralytics import import_ultralytics
from kdp.models.yolo11 import BINS, STRIDES

PREFIX = "model"
"""Name of the list of layers in a network of Ultralytics."""
IRRELEVANT = {
    "training",
    "inplace",
    "momentum",
    "name",
    "np",
    "type",
    "shape",
    "anchors",
    "strides",
}
"""Attributes that do not change what a network computes from an image."""
LONGEST = 40
"""Characters of a value in a message."""


@dataclass(frozen=True)
class PlannedModule:
    """A module of the definition.

    Attributes:
        kind: top package and name of the class.
        attributes: those that decide what it computes.
        children: names of its children.
        methods: names that its class defines, which no attribute may replace.
    """

    kind: tuple[str, str]
    attributes: Mapping[str, Any]
    children: frozenset[str]
    methods: frozenset[str]


def check_plan(path: Path, layers: OpaqueObject, scale: str, classes: int) -> None:
    """Compare every module of a stored network with the definition.

    Args:
        path: of the file, for messages.
        layers: the stored list of layers.
        scale: n, s, m, l or x.
        classes: their number.

    Raises:
        KdpError: a module is of another kind or has another attribute, or Ultralytics is missing.
    """
    plan = _plan(scale, classes)
    for name, module in _modules(layers, PREFIX):
        planned = plan.get(name)
        deviation = "is not there" if planned is None else _deviation(module, planned)
        if deviation:
            raise KdpError(
                f"{path} is not the yolo11{scale} that kdp computes: {name} {deviation}; kdp reads "
                "unchanged YOLO11 networks alone"
            )


def _modules(module: OpaqueObject, name: str) -> Iterator[tuple[str, OpaqueObject]]:
    yield name, module
    for key, child in module.state["_modules"].items():
        if child is not None:
            yield from _modules(child, f"{name}.{key}")


def _deviation(module: OpaqueObject, planned: PlannedModule) -> str:
    """What differs from the definition, in words; "" for nothing."""
    state = module.state
    kind = _kind(module.origin)
    if kind != planned.kind:
        return f"is {kind[1]} in place of {planned.kind[1]}"
    children = {key for key, child in state["_modules"].items() if child is not None}
    if missing := planned.children - children:
        return f"lacks {min(missing)}"
    if state.get("_forward_hooks") or state.get("_forward_pre_hooks"):
        return "has a hook, which changes its output"
    for key, value in state.items():
        if key in planned.methods and key not in planned.attributes:
            return f"has its own {key}"
        if key in planned.attributes and not _equal(value, planned.attributes[key]):
            return f"has {key}={_shown(value)} in place of {_shown(planned.attributes[key])}"
    if planned.kind[1] == "DFL" and not _counts(module):
        return "has weights other than 0, 1, 2 and so on"
    return ""


def _counts(dfl: OpaqueObject) -> bool:
    """Whether the weights are the bins' numbers: kdp does not read them."""
    weight = dfl.state["_modules"]["conv"].state["_parameters"]["weight"].tensor()
    return torch.equal(weight.float().flatten(), torch.arange(float(BINS)))


def _kind(origin: str) -> tuple[str, str]:
    """Versions of Ultralytics move classes between their modules, so that these do not count."""
    return origin.partition(".")[0], origin.rpartition(".")[2]


def _equal(stored: Any, planned: Any) -> bool:
    if isinstance(stored, StoredTensor):
        stored = stored.tensor().flatten().tolist()
    if isinstance(planned, (list, tuple)):
        return isinstance(stored, (list, tuple)) and list(stored) == list(planned)
    return bool(stored == planned)


def _shown(value: Any) -> str:
    if isinstance(value, StoredTensor):
        value = value.tensor().flatten().tolist()
    text = "another value" if isinstance(value, OpaqueObject) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


@functools.cache
def _plan(scale: str, classes: int) -> dict[str, PlannedModule]:
    """The modules of the definition by name."""
    tasks, torch_utils = (import_ultralytics(name) for name in ("nn.tasks", "utils.torch_utils"))
    plan = {**tasks.yaml_model_load(f"yolo11{scale}.yaml"), "nc": classes}
    with torch.device("meta"):
        layers, _ = tasks.parse_model(plan, ch=3, verbose=False)
    torch_utils.initialize_weights(layers)  # sets the epsilon of normalisations
    layers[-1].stride = [float(stride) for stride in STRIDES]
    return {
        f"{PREFIX}.{name}" if name else PREFIX: _planned(module)
        for name, module in layers.named_modules(remove_duplicate=False)  # activations are shared
    }


def _planned(module: nn.Module) -> PlannedModule:
    kind = type(module)
    attributes = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key not in IRRELEVANT and not isinstance(value, Tensor)
    }
    return PlannedModule(
        kind=_kind(f"{kind.__module__}.{kind.__qualname__}"),
        attributes=attributes,
        children=frozenset(dict(module.named_children())),
        methods=frozenset(key for key in dir(kind) if callable(getattr(kind, key))) - IRRELEVANT,
    )
