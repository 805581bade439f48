"""Object detection: data, loss, average precision, and the channels that may go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdp.config import Config, EmbeddedSamples, SamplesConfig
from kdp.data.boxes import AnnotatedImage
from kdp.data.detection import BoxDataset, letterbox, unletterbox
from kdp.data.images import ImageArray
from kdp.data.mosaic import GREY
from kdp.data.patches import to_tensor
from kdp.data.toy_shapes import CLASSES, toy_shapes
from kdp.data.voc import voc_folder
from kdp.data.yolo_yaml import yolo_yaml
from kdp.devices import device_of
from kdp.errors import KdpError
from kdp.measure.detection import Boxes, average_precision, nms
from kdp.models.ultralytics import import_ultralytics
from kdp.models.yolo11 import BINS, STRIDES, TAPS, decode
from kdp.pruning.dependency import channel_groups
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics
from kdp.tasks.family import Family, check_embedded
from kdp.tasks.labelled_boxes import LabelledBox, drawn
from kdp.tasks.sections import BoxSamples, DetectConfig, MosaicOptions
from kdp.types import Arch

BATCH = 8
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
"""Of the parts of the loss, as YOLO11 is published."""
LEAST, OVERLAP = 0.001, 0.7
"""Probability and IoU at which quality is measured."""


class Detection(Family):
    """The task of `yolo11`; see `kdp.tasks.base.Task`."""

    primary_metric = "map50_95"

    def __init__(self, arch: Arch, config: Config) -> None:
        self.classes = tuple(arch.args["classes"])
        self.size = int(arch.args.get("image_size", 640))
        super().__init__(arch, config)
        self.output_splits = (4, len(self.classes))
        self.reads = f"RGB in 0..1, letterboxed to {self.size}x{self.size} on grey {GREY}"
        self.gives = "centre x, centre y, width, height in pixels, probabilities; for every cell"
        self._criteria: dict[torch.device, Any] = {}

    @property
    def protocol(self) -> str:
        return (
            f"letterboxed to {self.size}x{self.size}, probability >= {LEAST}, NMS at IoU "
            f"{OVERLAP}, mAP over IoU 0.5:0.95"
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Box, class and distribution losses of YOLO11 with task-aligned assignment (Feng et al.
        2021), as Ultralytics computes them, for one picture: not multiplied by the batch."""
        device = output.device
        if device not in self._criteria:
            self._criteria[device] = _criterion(len(self.classes), device)
        boxes, scores = output[:, : 4 * BINS], output[:, 4 * BINS :]
        height, width = batch["image"].shape[-2:]
        maps = [output.new_empty(len(output), 1, height // s, width // s) for s in STRIDES]
        there = batch["boxes"][..., 0] >= 0
        labels = batch["boxes"][there]
        wanted = {
            "batch_idx": there.nonzero()[:, 0].to(labels),
            "cls": labels[:, :1],
            "bboxes": labels[:, 1:],
        }
        said = {"boxes": boxes, "scores": scores, "feats": maps}
        return self._criteria[device].get_assigned_targets_and_loss(said, wanted)[1].sum()

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """Squared difference of class probabilities and, where the reference sees something, of
        the distributions of sides; mean over the cells."""
        (sides, scores), (true_sides, true) = (
            (x[:, : 4 * BINS].unflatten(1, (4, BINS)).softmax(2), x[:, 4 * BINS :].sigmoid())
            for x in (output, reference)
        )
        seen = true.amax(1)
        moved = (sides - true_sides).square().sum((1, 2))
        return ((scores - true).square().sum(1) + seen * moved).mean(1)

    def confidence_map(self, output: Tensor) -> Tensor:
        """The greatest probability of any class in every cell."""
        return output[:, 4 * BINS :].sigmoid().amax(1)

    def samples(self, length: int, seed: int, augment: bool) -> BoxDataset:
        data = self.config.data.options(MosaicOptions)
        return BoxDataset(
            self.training_samples,
            self.size,
            seed,
            augment,
            length,
            data.mosaic,
            data.close_mosaic,
        )

    def load(self, section: SamplesConfig, validation: bool) -> list[AnnotatedImage]:
        return load_boxed(section, self.classes, validation)

    def evaluate(self, model: nn.Module) -> dict[str, Metrics]:
        """Average precision (0..1), mean and by class."""
        model.eval()
        return {name: self._evaluate(model, them) for name, them in self.evaluation_sets.items()}

    def _evaluate(self, model: nn.Module, pictures: Sequence[AnnotatedImage]) -> Metrics:
        found = list(self.find(model, (one.read() for one in pictures), LEAST, OVERLAP))
        truth = [
            Boxes(
                torch.from_numpy(one.boxes),
                torch.from_numpy(one.labels),
                torch.ones(len(one.labels)),
            )
            for one in pictures
        ]
        return average_precision(found, truth, self.classes)

    @torch.no_grad()
    def find(
        self,
        model: nn.Module,
        pictures: Iterator[ImageArray],
        least: float,
        overlap: float,
    ) -> Iterator[Boxes]:
        """The objects in (H, W, 3) uint8 pictures of any size, in their pixels, on the CPU."""
        device = device_of(model)
        while some := list(islice(pictures, BATCH)):
            fitted = [letterbox(picture, self.size) for picture in some]
            x = torch.stack([to_tensor(picture) for picture, *_ in fitted]).to(device)
            found = nms(self.decoded(model(x), x.shape[-2:]).cpu(), least, overlap)
            for one, picture, (_, scale, offset) in zip(found, some, fitted, strict=True):
                height, width = picture.shape[:2]
                corners = unletterbox(one.corners.numpy(), scale, offset, height, width)
                yield Boxes(torch.from_numpy(np.asarray(corners)), one.labels, one.scores)

    def shown(self, model: nn.Module, picture: ImageArray) -> Boxes:
        """The objects of a picture that are worth drawing."""
        shown = self.config.section(DetectConfig)
        return next(self.find(model, iter([picture]), shown.confidence, shown.iou))

    def decoded(self, output: Tensor, size: Sequence[int]) -> Tensor:
        """Boxes and probabilities; exported networks give them themselves."""
        if output.shape[1] == 4 + len(self.classes):
            return output.float()
        return decode(output.float(), size)

    def labelled(self, found: Boxes) -> list[LabelledBox]:
        """Boxes to draw, the surest first."""
        boxes = []
        for (x0, y0, x1, y1), label, score in zip(
            found.corners.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
        ):
            place = (round(x0), round(y0), round(x1 - x0), round(y1 - y0))
            boxes.append(LabelledBox(place, label, self.classes[label], score))
        return boxes

    def predictions(self, model: nn.Module) -> list[dict[str, str | int | float]]:
        model.eval()
        rows: list[dict[str, str | int | float]] = []
        for name, pictures in self.evaluation_sets.items():
            found = self.find(model, (one.read() for one in pictures), LEAST, OVERLAP)
            for picture, boxes in zip(pictures, found, strict=True):
                for corners, label, score in zip(
                    boxes.corners.tolist(),
                    boxes.labels.tolist(),
                    boxes.scores.tolist(),
                    strict=True,
                ):
                    sides = dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))
                    row = {"set": name, "name": picture.name, "found": self.classes[label]}
                    numbers = {key: f"{value:.2f}" for key, value in sides.items()}
                    rows.append({**row, **numbers, "probability": f"{score:.6f}"})
        return rows

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Every picture with what each network finds in it, side by side."""
        for name, pictures in self.evaluation_sets.items():
            for one in pictures:
                picture = one.read()
                seen = [self.shown(model, picture) for model in models]
                views = [
                    drawn(picture, self.labelled(boxes), label)
                    for boxes, label in zip(seen, labels, strict=True)
                ]
                yield f"{name}_{one.name.replace('/', '_')}", np.concatenate(views, 1)

    @property
    def native_size(self) -> tuple[int, int]:
        return self.size, self.size

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        """The channels of every convolution but those of the attention and the head's outputs,
        which alone have biases."""
        stay = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and (".attn." in name or module.bias is not None)
        ]
        example = self.example((64, 64)).to(device_of(model))
        return channel_groups(model, example, "widths", stay, per_layer=True)

    def taps(self, model: nn.Module) -> list[str]:
        """The ends of the stages of backbone and neck."""
        return list(TAPS)


class ObjectLabeller:
    """What a detector finds, the surest first.

    Args:
        model: on its device.
        task: of the model.
    """

    def __init__(self, model: nn.Module, task: Detection) -> None:
        self._model, self._task = model, task

    def __call__(self, picture: ImageArray) -> list[LabelledBox]:
        """The objects in an RGB picture."""
        return self._task.labelled(self._task.shown(self._model, picture))


def _criterion(classes: int, device: torch.device) -> Any:
    """Ultralytics' loss, which reads what it needs off a network, given just that."""
    head = SimpleNamespace(
        stride=torch.tensor(STRIDES, dtype=torch.float32, device=device), nc=classes, reg_max=BINS
    )
    like = SimpleNamespace(
        parameters=lambda: iter([torch.empty(0, device=device)]),
        args=SimpleNamespace(**GAINS),
        model=[head],
    )
    return import_ultralytics("utils.loss").v8DetectionLoss(like)


def load_boxed(
    pictures: SamplesConfig, classes: Sequence[str], validation: bool
) -> list[AnnotatedImage]:
    """The pictures a section of the configuration asks for.

    Raises:
        KdpError: the kind is none of this task's or has other classes, or data are missing.
    """
    if isinstance(pictures, EmbeddedSamples):
        check_embedded(classes, CLASSES, "'voc' or 'yolo'")
        return toy_shapes(validation)
    if isinstance(pictures, BoxSamples):
        read = voc_folder if pictures.kind == "voc" else yolo_yaml
        split = pictures.split or ("val" if validation else "train")
        return read(pictures.folder, split, classes)
    raise KdpError(
        "pictures with objects are of the kind 'voc' (with `folder`), 'yolo' (with `folder`, the "
        f"YAML file) or 'embedded', not {pictures.kind!r}"
    )
