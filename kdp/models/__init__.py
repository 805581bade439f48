"""Table of the networks by name, and how to build, fuse and export them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdp.errors import KdpError, first_line, suggest
from kdp.models.arguments import check_arguments
from kdp.models.audio_transformer import AudioTransformer, pretrained
from kdp.models.catanet import CATANet, infer_args
from kdp.models.mask_classifier import MaskClassifier
from kdp.models.mobile import cp_mobile, rep_mobile
from kdp.models.reparam import fused_params
from kdp.models.size_limit import limit_size
from kdp.models.ultralytics_names import arch_of_plan
from kdp.models.yolo11 import SCORES, YOLO11
from kdp.types import Arch

MODELS: dict[str, Callable[..., nn.Module]] = {
    "audio_transformer": AudioTransformer,
    "catanet": CATANet,
    "cp_mobile": cp_mobile,
    "mask_classifier": MaskClassifier,
    "rep_mobile": rep_mobile,
    "yolo11": YOLO11,
}
PLANS: dict[str, Callable[[str, Mapping[str, Any]], Arch]] = {"yolo11": arch_of_plan}
"""Network -> function of (name of a foreign definition file, remaining arguments) -> `Arch`."""
INFER: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any] | None]] = {"catanet": infer_args}
"""Network -> function that infers its arguments from foreign weights; None if they do not fit."""
Pretrained = Callable[[Path, Mapping[str, Any]], tuple[nn.Module, dict[str, Any]]]
PRETRAINED: dict[str, Pretrained] = {"audio_transformer": pretrained}
"""Network -> function of (folder of pretrained weights, arguments) -> network, all arguments."""


class NewHead(NamedTuple):
    """What a training may change of the network whose weights it starts from.

    Attributes:
        free: arguments that may be others than those of the weights; `classes` among them.
        scores: pattern of the names of the weights that score the classes.
    """

    free: tuple[str, ...]
    scores: str


NEW_HEADS: dict[str, NewHead] = {"yolo11": NewHead(("classes", "image_size"), SCORES)}
"""Networks whose weights may start a training on other classes."""


def build(name: str, **args: Any) -> nn.Module:
    """Build a network with random weights, in training mode.

    Raises:
        KdpError: unknown network, arguments that it does not accept, or a network that is too
            large; in that case nothing was allocated.
    """
    if name not in MODELS:
        raise KdpError(f"no network is called {name!r}; available: {', '.join(sorted(MODELS))}")
    known = signature(MODELS[name]).parameters
    unknown = next((key for key in args if key not in known), None)
    if unknown is not None and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        raise KdpError(f"cannot build {name!r}: no argument {unknown!r}; {suggest(unknown, known)}")
    try:
        check_arguments(MODELS[name], args)
    except ValueError as error:
        raise KdpError(f"cannot build {name!r}: {error}") from error
    if torch.get_default_device().type != "meta" and repr((name, args)) not in _buildable:
        build_on_meta(Arch(name, args))
    try:
        return MODELS[name](**args)
    # Arguments may come from any file: torch raises RuntimeError for what it cannot allocate.
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise KdpError(f"cannot build {name!r}: {first_line(error)}") from error


_buildable: set[str] = set()
"""Networks and arguments that were built on the meta device: `build` does so once before memory is
taken."""


def build_on_meta(arch: Arch) -> nn.Module:
    """Build a network on the meta device: shapes without values, and nearly without memory.

    Raises:
        KdpError: unknown network, arguments that it does not accept, or a network that is larger
            than any that kdp can train.
    """
    with torch.device("meta"), limit_size():
        model = build(arch.name, **arch.args).to("meta")
    _buildable.add(repr((arch.name, arch.args)))
    return model


def fused_arch(arch: Arch) -> Arch:
    """The architecture after `fuse`; unchanged if the network cannot be fused."""
    if "fused" not in signature(MODELS[arch.name]).parameters:
        return arch
    return arch.with_args(fused=True)


def fuse(model: nn.Module, arch: Arch) -> tuple[nn.Module, Arch]:
    """Fold normalisations and parallel branches into convolutions.

    A network that is fused already, or cannot be, is returned unchanged. The result is in
    evaluation mode, because it was folded with the running statistics.
    """
    smaller = fused_arch(arch)
    if smaller == arch:
        return model, arch
    network = build(smaller.name, **smaller.args)
    network.load_state_dict(fused_params(model))
    return network.eval(), smaller


def with_decoding(model: nn.Module, arch: Arch) -> tuple[nn.Module, Arch]:
    """The same network with decoded outputs, which programs without kdp can use, if it has them."""
    if "decoded" not in signature(MODELS[arch.name]).parameters:
        return model, arch
    arch = arch.with_args(decoded=True)
    network = build(arch.name, **arch.args)
    network.load_state_dict(model.state_dict())
    return network.eval(), arch
