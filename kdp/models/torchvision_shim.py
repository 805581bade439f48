"""A stand-in for torchvision's operators where torchvision is installed but fails to import.

The published wheel of torchvision does not load beside a CPU-only torch ("operator torchvision::nms
does not exist"), and transformers imports torchvision whenever it is installed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
import warnings

import torch
from torch import Tensor

from kdp.errors import KdpError, first_line
from kdp.log import log

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
NAMES = ("torchvision::nms", "torchvision::qnms")
"""Operators that torchvision's import looks up by name."""


@functools.cache
def install() -> None:
    """Make a broken torchvision importable; call it before anything imports torchvision.

    Non-maximum suppression is then Ultralytics', if installed, so that its `train`, `val` and
    `predict` work. Torchvision's other operators stay unavailable.

    Raises:
        KdpError: torchvision fails to import with the stand-in too.
    """
    if "torchvision" in sys.modules or not _broken():
        return
    log.info(
        "torchvision does not load beside this torch: a slower stand-in for its operators is used"
    )
    try:
        for name in NAMES:
            torch.library.define(name, SCHEMA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its image readers do not load either
            vision = importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise KdpError(
            f"torchvision does not load ({first_line(error)}): pip uninstall torchvision"
        ) from error
    if importlib.util.find_spec("ultralytics"):
        vision.ops.nms = vision.ops.boxes.nms = _nms


def _broken() -> bool:
    """Whether torchvision is installed but its compiled operators do not load."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    loader = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    finder = importlib.machinery.FileFinder(spec.submodule_search_locations[0], loader)
    library = finder.find_spec("_C")
    if library is None or library.origin is None:
        return True
    try:
        torch.ops.load_library(library.origin)
    except (ImportError, OSError):
        return True
    return False


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """`torchvision.ops.nms` by Ultralytics, which is imported now and not before."""
    from kdp.models.ultralytics import import_ultralytics

    return import_ultralytics("utils.nms").TorchNMS.nms(boxes, scores, iou_threshold)
