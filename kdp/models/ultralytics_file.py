"""Checkpoints of Ultralytics: read without Ultralytics or code execution, and written for it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.files import write_atomic
from kdp.models.safe_unpickle import OpaqueObject, load_without_code
from kdp.models.ultralytics import import_ultralytics
from kdp.models.ultralytics_plan import check_plan
from kdp.models.yolo11 import BINS, SCALES, STRIDES
from kdp.node_count import count_nodes
from kdp.sizes import check_tensors
from kdp.types import Arch

MAX_MODULES = 10_000
"""More than twice those of the largest network of Ultralytics."""
IMAGE_SIZE = 640
"""Ultralytics' default training size."""
_WIDER = ["Conv", "C3k2"]
_UP = ["Upsample", "Concat", "C3k2"]
_DOWN = ["Conv", "Concat", "C3k2"]
LAYERS = ("Conv", *_WIDER * 4, "SPPF", "C2PSA", *_UP * 2, *_DOWN * 2, "Detect")
"""Layer classes of YOLO11, in order."""
LICENSE = "AGPL-3.0 License (https://ultralytics.com/license)"
DOCS = "https://docs.ultralytics.com"
STRIPPED = ("best_fitness", "ema", "optimizer", "scaler", "stopper", "train_results", "updates")
"""Keys that Ultralytics sets to None when a training ends."""


def read_ultralytics(path: Path) -> tuple[dict[str, Tensor], Arch]:
    """Read the weights of a YOLO11 checkpoint of Ultralytics, the moving average if it has one.

    Args:
        path: a `.pt` file. Ultralytics need not be installed and nothing in the file is executed.

    Returns:
        Tensors by the names of `DetectionModel.state_dict()`, floats as float32, and the
        architecture, with the arguments `scale`, `classes` and `image_size`.

    Raises:
        KdpError: the file is unreadable or holds another network than a YOLO11 detector.
    """
    content = load_without_code(path)
    with _valid(path):
        model = _network(path, content)
        count_nodes(model, _children, MAX_MODULES)
        stored = dict(_tensors(model))
        check_tensors(path, stored.values(), path.stat().st_size)
        params = {name: _as_float32(tensor) for name, tensor in stored.items()}
        scale, classes = _scale(path, model.state), _classes(model.state["names"])
        args = {"scale": scale, "classes": classes, "image_size": _image_size(content)}
    if "model.0.bn.weight" not in params:
        raise KdpError(f"{path} holds a fused network: save it before fuse()")
    # Without it the network cannot be built either, only its weights be inspected.
    if find_spec("ultralytics"):
        with _valid(path):
            check_plan(path, _layers(model), scale, len(classes))
    return params, Arch("yolo11", args)


@contextmanager
def _valid(path: Path) -> Iterator[None]:
    """The content of a file is untrusted: any value may have any type."""
    try:
        yield
    except KdpError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise KdpError(f"{path} holds no network that Ultralytics wrote") from error


def _layers(model: OpaqueObject) -> OpaqueObject:
    layers: OpaqueObject = model.state["_modules"]["model"]
    return layers


def _network(path: Path, content: Any) -> OpaqueObject:
    """The opaque object of the network, after checking that it is a YOLO11 detector."""
    models = [content.get(key) for key in ("ema", "model")]
    model = next((m for m in models if isinstance(m, OpaqueObject)), None)
    if model is None or not model.origin.startswith("ultralytics."):
        raise KdpError(f"{path} holds no network that Ultralytics wrote")
    kind = model.origin.rpartition(".")[2]
    if kind != "DetectionModel":
        raise KdpError(f"{path} holds a {kind}; kdp reads Ultralytics' DetectionModel alone")
    layers = list(_layers(model).state["_modules"].values())
    head = layers[-1].state
    if head["_modules"].get("one2one_cv2") is not None:
        raise KdpError(f"{path} holds {_stem(model.state)} with an end-to-end head, not YOLO11")
    kinds = tuple(layer.origin.rpartition(".")[2] for layer in layers)
    if kinds != LAYERS or head["reg_max"] != BINS:
        raise KdpError(f"{path} holds {_stem(model.state)}, which is not YOLO11")
    return model


def _stem(state: Mapping[str, Any]) -> str:
    """Name of the definition file, such as yolo11s."""
    return Path(str(state["yaml"].get("yaml_file", "a network"))).stem


def _tensors(module: OpaqueObject, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers in the order and by the names of `state_dict()`."""
    state = module.state
    transient = state.get("_non_persistent_buffers_set", ())
    for name, stored in [*state["_parameters"].items(), *state["_buffers"].items()]:
        if stored is not None and name not in transient:
            yield prefix + name, stored.tensor()
    for name, child in state["_modules"].items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _as_float32(tensor: Tensor) -> Tensor:
    """A contiguous copy; numbers that are not floating point keep their type."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype).copy_(tensor)


def _children(module: OpaqueObject) -> list[OpaqueObject]:
    return [child for child in module.state["_modules"].values() if child is not None]


def _scale(path: Path, state: Mapping[str, Any]) -> str:
    scale = state["yaml"].get("scale")
    if scale in SCALES:
        return str(scale)
    for name in (_stem(state), path.stem):
        if match := re.search(f"yolo11([{''.join(SCALES)}])", name):
            return match[1]
    raise KdpError(f"{path} does not say its scale: put it into the name, as in yolo11s.pt")


def _classes(names: Any) -> list[str]:
    return [str(names[i]) for i in range(len(names))]


def _image_size(content: Mapping[str, Any]) -> int:
    """Side of the square in pixels, to the next multiple of the stride."""
    size = (content.get("train_args") or {}).get("imgsz", IMAGE_SIZE)
    side = max(size) if isinstance(size, (list, tuple)) else size
    return -(-int(side) // STRIDES[-1]) * STRIDES[-1]


def write_ultralytics(
    path: Path,
    params: Mapping[str, Tensor],
    scale: str,
    classes: Sequence[str],
    image_size: int,
    metrics: Mapping[str, float],
) -> None:
    """Write a full, unpruned YOLO11 as Ultralytics does, atomically.

    Ultralytics halves the precision of its own files; here weights stay as they are, so that both
    programs measure the same.

    Args:
        path: ends in `.pt`, which Ultralytics insists on.
        params: by the names of Ultralytics' `DetectionModel`.
        scale: n, s, m, l or x.
        classes: their names, in the order of the scores.
        image_size: side of the square images it was trained on, in pixels.
        metrics: what was measured, by name.

    Raises:
        KdpError: Ultralytics is missing, the weights are of another network, or the file cannot be
            written.
    """
    if path.suffix != ".pt":
        raise KdpError(f"{path} must end in .pt: Ultralytics reads nothing else")
    utils = import_ultralytics("utils")
    args = {**utils.DEFAULT_CFG_DICT, "model": f"yolo11{scale}.yaml", "imgsz": image_size}
    args |= {"task": "detect", "mode": "train"}
    content = {
        "date": datetime.now().astimezone().isoformat(),
        "version": import_ultralytics().__version__,
        "license": LICENSE,
        "docs": DOCS,
        "epoch": -1,
        **dict.fromkeys(STRIPPED),
        "model": _model(path, params, scale, classes, args),
        "train_args": args,
        "train_metrics": {name: float(value) for name, value in metrics.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())


def _model(
    path: Path,
    params: Mapping[str, Tensor],
    scale: str,
    classes: Sequence[str],
    args: Mapping[str, Any],
) -> Any:
    """Ultralytics' network with these weights and the attributes that its loader expects."""
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced
        model = import_ultralytics("nn.tasks").DetectionModel(
            args["model"], nc=len(classes), verbose=False
        )
    try:
        model.load_state_dict({name: tensor.detach().cpu() for name, tensor in params.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise KdpError(f"cannot write {path}: not a full yolo11{scale}: {reason}") from error
    model.names, model.task, model.args = dict(enumerate(classes)), "detect", dict(args)
    return model.eval().requires_grad_(False)
