"""`kdp infer` for detectors: objects are labelled with class and probability."""

from __future__ import annotations

from torch import nn

from kdp.config import Config
from kdp.data.images import ImageArray
from kdp.tasks.detection.task import Detection
from kdp.tasks.labelled_boxes import LabelledBoxes
from kdp.tasks.predictor import STREAM, InferOptions
from kdp.types import Arch


class ObjectLabeller:
    """Detects objects, the most confident first.

    Args:
        model: in eval mode, on its device.
        arch: of the model.
        config: `detect` is read.
        options: none applies.
    """

    options = STREAM
    kind = "a detector"
    action = "label objects"
    folder_suffix = "objects"
    min_side = 1

    def __init__(self, model: nn.Module, arch: Arch, config: Config, options: InferOptions) -> None:
        self._model, self._task = model, Detection(arch, config)

    def passes(self, image: ImageArray) -> int:
        return 1

    def __call__(self, image: ImageArray) -> LabelledBoxes:
        detections = self._task.confident(self._model, image)
        return LabelledBoxes(image, self._task.labelled(detections), "objects")
