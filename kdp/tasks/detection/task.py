"""Object detection: data, loss, average precision, and the prunable channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdp.config import Config, SamplesConfig
from kdp.data.boxes import AnnotatedImage
from kdp.data.detection import BoxDataset, letterbox, letterboxed_boxes, padded_rows, unletterbox
from kdp.data.images import ImageArray
from kdp.data.patches import to_tensor
from kdp.data.voc import ALL
from kdp.devices import device_of
from kdp.models.ultralytics import import_ultralytics
from kdp.models.yolo11 import BINS, STRIDES, TAPS, decode
from kdp.progress import Advance
from kdp.pruning.dependency import channel_groups
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics, Prediction
from kdp.tasks.detection.loading import load_boxed
from kdp.tasks.detection.metrics import Detections, average_precision, nms
from kdp.tasks.detection.panels import side_by_side
from kdp.tasks.detection.section import BoxSamples, DetectConfig, MosaicOptions
from kdp.tasks.fixed_size import FixedSizeTask
from kdp.tasks.labelled_boxes import LabelledBox
from kdp.types import Arch

Letterbox = tuple[ImageArray, float, tuple[int, int]]
"""What `letterbox` returns."""
BATCH = 8
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}
"""Weights of the parts of the loss, as published for YOLO11."""
CONF_THRESHOLD, IOU_THRESHOLD = 0.001, 0.7
"""Of the boxes that average precision is computed on: nearly all, as the curve needs its tail."""


class Detection(FixedSizeTask):
    """The task of `yolo11`; see `kdp.tasks.base.Task`."""

    primary_metric = "map50_95"
    headline_metrics = ("map50_95", "map50")
    # The trainer of Ultralytics multiplies the loss by the batch, and adds attention transfer as it
    # is: the study's weights are meant so.
    task_reduction = "sum"

    def __init__(self, arch: Arch, config: Config) -> None:
        self.classes = tuple(arch.args["classes"])
        self.size = int(arch.args.get("image_size", 640))
        super().__init__(arch, config)
        self._criteria: dict[torch.device, Any] = {}

    @property
    def metric_protocol(self) -> str:
        return (
            f"letterboxed to {self.size}x{self.size}, probability >= {CONF_THRESHOLD}, NMS at "
            f"IoU {IOU_THRESHOLD}, mAP over IoU 0.5:0.95"
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Box, class and distribution losses of YOLO11 with task-aligned assignment (Feng et al.
        2021), as Ultralytics computes them before it multiplies by the size of the batch."""
        device = output.device
        if device not in self._criteria:
            self._criteria[device] = _criterion(len(self.classes), device)
        boxes, scores = output[:, : 4 * BINS], output[:, 4 * BINS :]
        height, width = batch["image"].shape[-2:]
        maps = [output.new_empty(len(output), 1, height // s, width // s) for s in STRIDES]
        # Samples are padded to one number of boxes; the class of padding is -1.
        is_box = batch["boxes"][..., 0] >= 0
        labels = batch["boxes"][is_box]
        targets = {
            "batch_idx": is_box.nonzero()[:, 0].to(labels),
            "cls": labels[:, :1],
            "bboxes": labels[:, 1:],
        }
        predictions = {"boxes": boxes, "scores": scores, "feats": maps}
        criterion = self._criteria[device]
        # The second result holds the three weighted parts.
        return criterion.get_assigned_targets_and_loss(predictions, targets)[1].sum()

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """Squared difference of class probabilities and of the distributions of box sides.

        The sides of a cell count as far as the reference is confident that it holds an object:
        elsewhere they mean nothing. Mean over the cells.
        """
        (sides, scores), (reference_sides, reference_scores) = (
            (x[:, : 4 * BINS].unflatten(1, (4, BINS)).softmax(2), x[:, 4 * BINS :].sigmoid())
            for x in (output, reference)
        )
        confidence = reference_scores.amax(1)
        side_error = (sides - reference_sides).square().sum((1, 2))
        score_error = (scores - reference_scores).square().sum(1)
        return (score_error + confidence * side_error).mean(1)

    def confidence_map(self, output: Tensor) -> Tensor:
        """The largest class probability of every cell.

        The loss `score_weighted` with it, at weight 6 and on what the detection head reads, is that
        of the `DistillationModel` of Ultralytics 8.4.
        """
        return output[:, 4 * BINS :].sigmoid().amax(1)

    def samples(self, length: int, seed: int, augment: bool) -> BoxDataset:
        options = self.config.data.options(MosaicOptions)
        return BoxDataset(
            self.training_samples,
            self.size,
            seed,
            augment,
            length,
            options.mosaic,
            options.close_mosaic,
        )

    @cached_property
    def training_samples(self) -> list[AnnotatedImage]:
        """The images to train on; the split `all` of a VOC folder is without those evaluated on."""
        section = self.config.data
        whole = isinstance(section, BoxSamples) and ALL in (
            source.split for source in section.sources("train")
        )
        evaluated = [*chain(*self.evaluation_sets.values())] if whole else []
        return load_boxed(section, self.classes, False, evaluated)

    def load(self, section: SamplesConfig, validation: bool) -> list[AnnotatedImage]:
        return load_boxed(section, self.classes, validation)

    def evaluate_set(
        self, models: Sequence[nn.Module], samples: Sequence[AnnotatedImage], advance: Advance
    ) -> list[Metrics]:
        """Average precision (0..1), mean and by class."""
        detections: list[list[Detections]] = [[] for _ in models]
        pixels = (image.read() for image in samples)
        while batch := list(islice(pixels, BATCH)):
            for model, own in zip(models, detections, strict=True):
                own += self.detect(model, iter(batch), CONF_THRESHOLD, IOU_THRESHOLD)
            advance(len(batch))
        truth = [_truth(image) for image in samples]
        return [average_precision(own, truth, self.classes) for own in detections]

    @torch.no_grad()
    def validate_set(self, model: nn.Module, samples: Sequence[AnnotatedImage]) -> Metrics:
        """The loss is the mean over batches, within which the objects are weighted."""
        detections: list[Detections] = []
        loss, device = 0.0, device_of(model)
        for start in range(0, len(samples), BATCH):
            annotated = samples[start : start + BATCH]
            pixels = [image.read() for image in annotated]
            squares = [letterbox(image, self.size) for image in pixels]
            x = _stacked(squares).to(device)
            output = model(x)
            detections += self._boxes(output, pixels, squares, CONF_THRESHOLD, IOU_THRESHOLD)
            batch = {"image": x, "boxes": self._targets(annotated, squares).to(device)}
            loss += float(self.loss(output.float(), batch)) * len(annotated)
        truth = [_truth(image) for image in samples]
        metrics = average_precision(detections, truth, self.classes)
        return {**metrics, "loss": loss / len(samples)}

    def _targets(self, images: Sequence[AnnotatedImage], squares: Sequence[Letterbox]) -> Tensor:
        """The true boxes as training samples hold them: (B, M, 5)."""
        count = max(1, *(len(image.labels) for image in images))
        boxes = [
            letterboxed_boxes(image.boxes, scale, offset)
            for image, (_, scale, offset) in zip(images, squares, strict=True)
        ]
        rows = [
            padded_rows(own, image.labels, self.size, count)
            for own, image in zip(boxes, images, strict=True)
        ]
        return torch.stack(rows)

    @torch.no_grad()
    def detect(
        self,
        model: nn.Module,
        images: Iterator[ImageArray],
        conf_threshold: float,
        iou_threshold: float,
    ) -> Iterator[Detections]:
        """The objects in (H, W, 3) uint8 images of any size, in their pixels, on the CPU."""
        device = device_of(model)
        while batch := list(islice(images, BATCH)):
            squares = [letterbox(image, self.size) for image in batch]
            output = model(_stacked(squares).to(device))
            yield from self._boxes(output, batch, squares, conf_threshold, iou_threshold)

    def _boxes(
        self,
        output: Tensor,
        images: Sequence[ImageArray],
        squares: Sequence[Letterbox],
        conf_threshold: float,
        iou_threshold: float,
    ) -> Iterator[Detections]:
        """The objects that the network's output on letterboxed images stands for."""
        decoded = self.decoded(output, (self.size, self.size)).cpu()
        detections = nms(decoded, conf_threshold, iou_threshold)
        for boxes, image, (_, scale, offset) in zip(detections, images, squares, strict=True):
            height, width = image.shape[:2]
            corners = unletterbox(boxes.corners.numpy(), scale, offset, height, width)
            yield Detections(torch.from_numpy(np.asarray(corners)), boxes.labels, boxes.scores)

    def confident(self, model: nn.Module, image: ImageArray) -> Detections:
        """The objects of an image that the section `detect` asks to show."""
        section = self.config.section(DetectConfig)
        return next(self.detect(model, iter([image]), section.confidence, section.iou))

    def decoded(self, output: Tensor, size: Sequence[int]) -> Tensor:
        """Boxes and probabilities; exported networks return them already."""
        if output.shape[1] == 4 + len(self.classes):
            return output.float()
        return decode(output.float(), size)

    def labelled(self, boxes: Detections) -> list[LabelledBox]:
        """Boxes to draw, the most confident first."""
        labelled = []
        for (x0, y0, x1, y1), label, score in _rows(boxes):
            box = (round(x0), round(y0), round(x1 - x0), round(y1 - y0))
            labelled.append(LabelledBox(box, label, self.classes[label], score))
        return labelled

    def predict_set(
        self, model: nn.Module, samples: Sequence[AnnotatedImage]
    ) -> Iterator[Prediction]:
        """A row for each detection that quality is measured on."""
        pixels = (image.read() for image in samples)
        detections = self.detect(model, pixels, CONF_THRESHOLD, IOU_THRESHOLD)
        for image, boxes in zip(samples, detections, strict=True):
            for corners, label, score in _rows(boxes):
                sides = zip(("x0", "y0", "x1", "y1"), corners, strict=True)
                numbers = {key: f"{value:.2f}" for key, value in sides}
                row = {"name": image.name, "predicted": self.classes[label], **numbers}
                yield {**row, "probability": f"{score:.6f}"}

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Every image with the true boxes and the detections of each network, side by side."""
        for name, images in self.evaluation_sets.items():
            for number, annotated in enumerate(images, 1):
                image = annotated.read()
                detections = [self.labelled(self.confident(model, image)) for model in models]
                truth = self.labelled(_truth(annotated))
                note = f"image {number} of {len(images)}"
                panels = side_by_side(image, truth, labels, detections, note)
                yield f"{name}_{annotated.name}", panels

    @property
    def native_size(self) -> tuple[int, int]:
        return self.size, self.size

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        """The channels of every convolution outside attention, but for the head's outputs.

        The last convolutions of the head are the only ones with biases, which tells them apart.
        """
        ignored = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and (".attn." in name or module.bias is not None)
        ]
        example = self.example((64, 64)).to(device_of(model))
        return channel_groups(model, example, "widths", ignored, per_layer=True)

    def taps(self, model: nn.Module) -> list[str]:
        """The outputs of the stages of backbone and neck."""
        return list(TAPS)


def _stacked(squares: Sequence[Letterbox]) -> Tensor:
    return torch.stack([to_tensor(square) for square, *_ in squares])


def _truth(image: AnnotatedImage) -> Detections:
    """The true boxes of an image, as certain detections."""
    labels = torch.from_numpy(image.labels)
    return Detections(torch.from_numpy(image.boxes), labels, torch.ones(len(labels)))


def _rows(boxes: Detections) -> Iterator[tuple[list[float], int, float]]:
    """Corners (x0, y0, x1, y1), class and probability of each box."""
    columns = (boxes.corners.tolist(), boxes.labels.tolist(), boxes.scores.tolist())
    return zip(*columns, strict=True)


def _criterion(classes: int, device: torch.device) -> Any:
    """Ultralytics' loss, built from a stand-in with the few attributes it reads of a network."""
    head = SimpleNamespace(
        stride=torch.tensor(STRIDES, dtype=torch.float32, device=device), nc=classes, reg_max=BINS
    )
    network = SimpleNamespace(
        parameters=lambda: iter([torch.empty(0, device=device)]),
        args=SimpleNamespace(**GAINS),
        model=[head],
    )
    return import_ultralytics("utils.loss").v8DetectionLoss(network)
