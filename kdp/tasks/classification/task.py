"""Image classification: data, loss, accuracy, and the prunable channels."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.config import Config, EmbeddedSamples, SamplesConfig
from kdp.data.folders import LabelledImage, class_folders, toy_faces
from kdp.data.images import ImageArray
from kdp.data.labelled import LabelledDataset, resized
from kdp.data.patches import to_tensor
from kdp.data.split import Split
from kdp.devices import device_of
from kdp.errors import KdpError
from kdp.measure.classification import confusion, divergence, summary
from kdp.models.mask_classifier import CLASSES, IMAGE_SIZE
from kdp.progress import Advance
from kdp.pruning.dependency import channel_groups
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics, Prediction
from kdp.tasks.classification.captions import captioned
from kdp.tasks.classification.section import FolderSamples
from kdp.tasks.evaluation import no_progress
from kdp.tasks.fixed_size import FixedSizeTask, check_embedded, class_columns
from kdp.types import Arch

BATCH = 64


class Classification(FixedSizeTask):
    """The task of `mask_classifier`; see `kdp.tasks.base.Task`."""

    primary_metric = "accuracy"
    headline_metrics = ("accuracy", "f1")

    def __init__(self, arch: Arch, config: Config) -> None:
        self.classes = tuple(arch.args.get("classes", CLASSES))
        self.size = int(arch.args.get("image_size", IMAGE_SIZE))
        super().__init__(arch, config)
        # The parts of a split are in one folder, of which reading decodes every image.
        self._read_folder = functools.cache(class_folders)

    @property
    def metric_protocol(self) -> str:
        classes, side = ", ".join(self.classes), self.size
        return f"classes {classes}; images resized to {side}x{side}, macro F1"

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, batch["label"])

    def sample_metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"accuracy": output.argmax(1) == batch["label"]}

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """KL(softmax(reference) || softmax(output)) of each image."""
        return divergence(output, reference)

    def samples(self, length: int, seed: int, augment: bool) -> LabelledDataset:
        return LabelledDataset(self.training_samples, self.size, seed, augment, length)

    def load(self, section: SamplesConfig, validation: bool) -> list[LabelledImage]:
        if isinstance(section, EmbeddedSamples):
            check_embedded(self.classes, CLASSES, "'folders'")
            return toy_faces(validation)
        if not isinstance(section, FolderSamples):
            raise KdpError(
                f"images with classes are of kind 'folders' (with `folder`) or 'embedded', "
                f"not {section.kind!r}"
            )
        images = self._read_folder(section.folder, self.classes)
        if section.split is None:
            return images
        split = section.split
        try:
            return Split(split.seed, split.val, split.test).part(images, split.part)
        except KdpError as error:
            raise KdpError(f"{section.folder}: {error}") from error

    def evaluate_set(
        self, models: Sequence[nn.Module], samples: Sequence[LabelledImage], advance: Advance
    ) -> list[Metrics]:
        """Accuracy and macro F1 (0..1), and the confusion matrix by name."""
        scores = self.predict_all(models, (image.read() for image in samples), advance)
        return [self._metrics(own, _labels(samples)) for own in scores]

    def _metrics(self, scores: Tensor, labels: Tensor) -> Metrics:
        return summary(confusion(labels, scores.argmax(1), len(self.classes)), self.classes)

    def validate_set(self, model: nn.Module, samples: Sequence[LabelledImage]) -> Metrics:
        (logits,) = self._outputs([model], (image.read() for image in samples))
        labels = _labels(samples)
        loss = self.loss(logits, {"label": labels})
        return {**self._metrics(logits.softmax(1), labels), "loss": float(loss)}

    def predict_set(
        self, model: nn.Module, samples: Sequence[LabelledImage]
    ) -> Iterator[Prediction]:
        scores = self.predict(model, (image.read() for image in samples))
        for image, own in zip(samples, scores, strict=True):
            yield {"name": image.name, **class_columns(self.classes, image.label, own)}

    def predict(self, model: nn.Module, images: Iterable[ImageArray]) -> Tensor:
        """Class probabilities of (H, W, 3) uint8 images of any size: (N, classes), on the CPU."""
        return self.predict_all([model], images)[0]

    def predict_all(
        self,
        models: Sequence[nn.Module],
        images: Iterable[ImageArray],
        advance: Advance = no_progress,
    ) -> list[Tensor]:
        """`predict` of several networks."""
        return [logits.softmax(1) for logits in self._outputs(models, images, advance)]

    @torch.no_grad()
    def _outputs(
        self,
        models: Sequence[nn.Module],
        images: Iterable[ImageArray],
        advance: Advance = no_progress,
    ) -> list[Tensor]:
        """Logits of several networks: (N, classes) each, on the CPU.

        Images are resized one at a time, so that with a generator only one of full size is in
        memory.
        """
        outputs: list[list[Tensor]] = [[] for _ in models]
        small = (to_tensor(resized(image, self.size)) for image in images)
        while batch := list(islice(small, BATCH)):
            x = torch.stack(batch)
            for model, own in zip(models, outputs, strict=True):
                own.append(model(x.to(device_of(model))).cpu())
            advance(len(batch))
        return [torch.cat(own) for own in outputs]

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The images that a network gets wrong, with the prediction of each network."""
        for name, images in self.evaluation_sets.items():
            scores = self.predict_all(models, (image.read() for image in images))
            wrong = [
                number
                for number, image in enumerate(images)
                if any(int(own[number].argmax()) != image.label for own in scores)
            ]
            for place, number in enumerate(wrong, 1):
                image = images[number]
                predictions = [self._prediction(own[number]) for own in scores]
                count = f"error {place} of {len(wrong)} in {len(images)} images"
                yield (
                    f"{name}_{image.name}",
                    captioned(image.read(), self.classes[image.label], labels, predictions, count),
                )

    def _prediction(self, scores: Tensor) -> tuple[str, float]:
        """The most probable class and its probability."""
        return self.classes[int(scores.argmax())], float(scores.max())

    @property
    def native_size(self) -> tuple[int, int]:
        return self.size, self.size

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        """The channels of every block; the outputs of the head are the classes and stay."""
        example = self.example(self.input_size).to(device_of(model))
        return channel_groups(model, example, "channels", [model.get_submodule("head")])

    def taps(self, model: nn.Module) -> list[str]:
        """The output of each block."""
        blocks = model.get_submodule("blocks")
        return [f"blocks.{name}" for name, _ in blocks.named_children()]


def _labels(images: Sequence[LabelledImage]) -> Tensor:
    return torch.tensor([image.label for image in images])
