"""Conversion of YOLO11's weight names and definition files between Ultralytics and kdp."""

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
    """The architecture of a definition file of Ultralytics, such as `yolo11m.yaml`.

    Args:
        name: name of the file, which need not exist.
        args: arguments that such a file leaves open: `classes` and `image_size`.

    Raises:
        KdpError: the name is not that of a YOLO11 or has no scale.
    """
    match = re.fullmatch(f"yolo11([{''.join(SCALES)}])[.]ya?ml", name)
    if match is None:
        raise KdpError(f"{name}: kdp knows the plans yolo11n.yaml to yolo11x.yaml")
    kept = {key: args[key] for key in ("classes", "image_size") if key in args}
    return Arch("yolo11", {"scale": match[1], **kept})


def from_ultralytics(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of Ultralytics' DetectionModel to those of `YOLO11`: split and rename."""
    result: dict[str, Tensor] = {}
    for name, tensor in params.items():
        block, part, rest = name.replace("model.", "layers.", 1).partition(".cv1.")
        if ".dfl." in name:
            continue  # constants, 0 to 15, that Ultralytics stores as a weight
        if part and block in _SPLIT:
            # num_batches_tracked of a normalisation is a scalar and the same for both halves.
            halves = tensor.chunk(2) if tensor.ndim else (tensor, tensor)
            result |= {f"{block}.{p}.{rest}": half for p, half in zip(_PARTS, halves, strict=True)}
        else:
            result[block + part + rest] = tensor
    return result


def to_ultralytics(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_ultralytics`, for a network that was not pruned."""
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
