"""What Ultralytics calls the weights and the plans of YOLO11, and what kdp does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.models.yolo11 import BINS, SCALES
from kdp.types import Arch

_PARTS = ("first", "second")
_SPLIT = tuple(f"layers.{i}" for i in (2, 4, 6, 8, 10, 13, 16, 19, 22))


def arch_of_plan(name: str, args: Mapping[str, Any]) -> Arch:
    """The architecture of a plan of Ultralytics, such as `yolo11m.yaml`.

    Args:
        name: of the file, which need not be there.
        args: what a plan does not say: `classes` and `image_size`.

    Raises:
        KdpError: it is not of YOLO11, or has no scale.
    """
    found = re.fullmatch(f"yolo11([{''.join(SCALES)}])[.]ya?ml", name)
    if found is None:
        raise KdpError(f"{name}: kdp knows the plans yolo11n.yaml to yolo11x.yaml")
    kept = {key: args[key] for key in ("classes", "image_size") if key in args}
    return Arch("yolo11", {"scale": found[1], **kept})


def from_ultralytics(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of Ultralytics' DetectionModel -> by those of `YOLO11`."""
    result: dict[str, Tensor] = {}
    for name, tensor in params.items():
        block, part, rest = name.replace("model.", "layers.", 1).partition(".cv1.")
        if ".dfl." in name:
            continue  # no weights: the numbers of the bins
        if part and block in _SPLIT:
            # Of a normalisation there is one scalar too, the number of batches seen.
            halves = tensor.chunk(2) if tensor.ndim else (tensor, tensor)
            result |= {f"{block}.{p}.{rest}": half for p, half in zip(_PARTS, halves, strict=True)}
        else:
            result[block + part + rest] = tensor
    return result


def to_ultralytics(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way round, for a network that was not pruned."""
    result: dict[str, Tensor] = {}
    for name, tensor in params.items():
        block, part, rest = name.partition(".first.")
        second = params.get(f"{block}.second.{rest}")
        if second is not None:
            name = f"{block}.cv1.{rest}"
            tensor = torch.cat([tensor, second]) if tensor.ndim else tensor
        if not part and ".second." in name:
            continue
        result[name.replace("layers.", "model.", 1)] = tensor
    head = max(int(name.split(".")[1]) for name in params)
    result[f"model.{head}.dfl.conv.weight"] = torch.arange(float(BINS)).view(1, -1, 1, 1)
    return result
