"""`kdp infer` for classifiers: faces, or whole images, are labelled with their class."""

from __future__ import annotations

from torch import nn

from kdp.config import Config
from kdp.data.images import ImageArray
from kdp.tasks.classification.face_boxes import FaceFinder, cropped, whole_image
from kdp.tasks.classification.task import Classification
from kdp.tasks.labelled_boxes import LabelledBox, LabelledBoxes
from kdp.tasks.predictor import STREAM, WHOLE, InferOptions
from kdp.types import Arch


class FaceLabeller:
    """Finds faces and classifies each of them.

    Args:
        model: in eval mode, on its device.
        arch: of the model.
        config: the whole configuration.
        options: `whole`.

    Raises:
        KdpError: see `FaceFinder`.
    """

    options = STREAM | {WHOLE}
    kind = "a classifier"
    action = "label faces"
    folder_suffix = "faces"
    min_side = 1

    def __init__(self, model: nn.Module, arch: Arch, config: Config, options: InferOptions) -> None:
        self._model, self._task = model, Classification(arch, config)
        self._find_boxes = whole_image if options.whole else FaceFinder()

    def passes(self, image: ImageArray) -> int:
        return 1

    def __call__(self, image: ImageArray) -> LabelledBoxes:
        """The faces of an RGB image, from left to right."""
        boxes = self._find_boxes(image)
        labelled: list[LabelledBox] = []
        if boxes:
            crops = [cropped(image, box) for box in boxes]
            for box, scores in zip(boxes, self._task.predict(self._model, crops), strict=True):
                label = int(scores.argmax())
                name, probability = self._task.classes[label], float(scores.max())
                labelled.append(LabelledBox(box, label, name, probability))
        return LabelledBoxes(image, labelled, "faces")
