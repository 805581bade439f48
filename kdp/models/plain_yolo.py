"""Files that plain Ultralytics loads, `YOLO("file.pt")`, where no kdp is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdp.errors import KdpError
from kdp.files import write_atomic
from kdp.models.ultralytics import load

LICENSE = "AGPL-3.0 License (https://ultralytics.com/license)"
DOCS = "https://docs.ultralytics.com"
STRIPPED = ("best_fitness", "ema", "optimizer", "scaler", "stopper", "train_results", "updates")
"""What a file of a finished training has no more."""


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
        image_size: side of the square pictures it was trained on, in pixels.
        metrics: what was measured, by name.

    Raises:
        KdpError: Ultralytics is missing, the weights are of another network, or the file cannot be
            written.
    """
    if path.suffix != ".pt":
        raise KdpError(f"{path} must end in .pt: Ultralytics reads nothing else")
    utils = load("utils")
    args = {**utils.DEFAULT_CFG_DICT, "model": f"yolo11{scale}.yaml", "imgsz": image_size}
    args |= {"task": "detect", "mode": "train"}
    content = {
        "date": datetime.now().astimezone().isoformat(),
        "version": load().__version__,
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
    """Ultralytics' network with these weights and the attributes that its files have."""
    with torch.random.fork_rng(devices=[]):  # its first weights are replaced
        model = load("nn.tasks").DetectionModel(args["model"], nc=len(classes), verbose=False)
    try:
        model.load_state_dict({name: tensor.detach().cpu() for name, tensor in params.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise KdpError(f"cannot write {path}: not a full yolo11{scale}: {reason}") from error
    model.names, model.task, model.args = dict(enumerate(classes)), "detect", dict(args)
    return model.eval().requires_grad_(False)
