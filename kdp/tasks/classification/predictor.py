"""`kdp infer` for classifiers: faces, or whole images, are labelled with their class."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

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
        self._detects = not options.whole
        self._find_boxes = FaceFinder() if self._detects else whole_image
        self._total = self._without = 0

    def passes(self, image: ImageArray) -> int:
        return 1

    def __call__(self, image: ImageArray) -> LabelledBoxes:
        """The faces of an RGB image, from left to right."""
        part_ms: dict[str, float] = {}
        with _timed(part_ms, "detector") if self._detects else nullcontext():
            boxes = self._find_boxes(image)
        self._total, self._without = self._total + 1, self._without + (not boxes)
        labelled: list[LabelledBox] = []
        if boxes:
            crops = [cropped(image, box) for box in boxes]
            with _timed(part_ms, "classifier"):
                probabilities = self._task.predict(self._model, crops)
            for box, scores in zip(boxes, probabilities, strict=True):
                label = int(scores.argmax())
                name, probability = self._task.classes[label], float(scores.max())
                labelled.append(LabelledBox(box, label, name, probability))
        return LabelledBoxes(image, labelled, "faces", part_ms)

    def advice(self, noun: str) -> str:
        """Images of faces that are cropped already often have none that the cascade finds."""
        if not self._without:
            return ""
        return f"no face in {self._without} of {self._total} {noun}; try --whole"


@contextmanager
def _timed(part_ms: dict[str, float], part: str) -> Iterator[None]:
    """Note the milliseconds that a part takes."""
    start = time.perf_counter()
    yield
    part_ms[part] = 1000 * (time.perf_counter() - start)
