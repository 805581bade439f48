"""A stand-in for torchvision's operators, where torchvision is installed and they do not load.

The published wheel of torchvision does not load beside a CPU-only torch ("operator torchvision::nms
does not exist"), and once it is there, it takes transformers' networks with it.
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
"""The operators that torchvision's own import asks for by name."""


@functools.cache
def install() -> None:
    """Make torchvision importable, before anything imports it; once, and only where it is not.

    Non-maximum suppression is then Ultralytics' where that is installed, so that its `train`, `val`
    and `predict` run too. Torchvision's other operators are absent.

    Raises:
        KdpError: torchvision does not load with the stand-in either.
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
            warnings.simplefilter("ignore")  # that its readers of images do not load either
            vision = importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise KdpError(
            f"torchvision does not load ({first_line(error)}): pip uninstall torchvision"
        ) from error
    if importlib.util.find_spec("ultralytics"):
        vision.ops.nms = vision.ops.boxes.nms = _nms


def _broken() -> bool:
    """Whether torchvision is installed and its compiled operators do not load."""
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
