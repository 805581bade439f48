"""Image classification: data, loss, accuracy, and the channels that may go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.config import Config, EmbeddedSamples, SamplesConfig
from kdp.data.folders import LabelledImage, class_folders, toy_faces
from kdp.data.images import ImageArray
from kdp.data.labelled import LabelledDataset, resized
from kdp.data.patches import to_tensor
from kdp.devices import device_of
from kdp.errors import KdpError
from kdp.measure.classes import confusion, divergence, summary
from kdp.models.mask_classifier import CLASSES, IMAGE_SIZE
from kdp.pruning.dependency import channel_groups
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics
from kdp.tasks.family import Family, check_embedded
from kdp.tasks.sections import FolderSamples
from kdp.types import Arch

BATCH = 64


class Classification(Family):
    """The task of `mask_classifier`; see `kdp.tasks.base.Task`."""

    primary_metric = "accuracy"
    dynamic_axes = (0, 2, 3)

    def __init__(self, arch: Arch, config: Config) -> None:
        self.classes = tuple(arch.args.get("classes", CLASSES))
        self.size = int(arch.args.get("image_size", IMAGE_SIZE))
        self.reads = f"RGB in 0..1, resized to {self.size}x{self.size}"
        self.gives = "logits of the classes"
        super().__init__(arch, config)

    @property
    def protocol(self) -> str:
        classes, side = ", ".join(self.classes), self.size
        return f"classes {classes}; pictures resized to {side}x{side}, macro F1"

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, batch["label"])

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """KL(softmax(reference) || softmax(output)) of each picture."""
        return divergence(output, reference)

    def samples(self, length: int, seed: int, augment: bool) -> LabelledDataset:
        return LabelledDataset(self.training_samples, self.size, seed, augment, length)

    def load(self, section: SamplesConfig, validation: bool) -> list[LabelledImage]:
        return load_labelled(section, self.classes, validation)

    def evaluate(self, model: nn.Module) -> dict[str, Metrics]:
        """Accuracy and macro F1 (0..1), and how many of each class were taken for each."""
        model.eval()
        return {name: self._evaluate(model, them) for name, them in self.evaluation_sets.items()}

    def _evaluate(self, model: nn.Module, pictures: Sequence[LabelledImage]) -> Metrics:
        labels = torch.tensor([picture.label for picture in pictures])
        found = self.predict(model, (picture.read() for picture in pictures)).argmax(1)
        return summary(confusion(labels, found, len(self.classes)), self.classes)

    def predictions(self, model: nn.Module) -> list[dict[str, str | int | float]]:
        model.eval()
        rows: list[dict[str, str | int | float]] = []
        for name, pictures in self.evaluation_sets.items():
            said = self.predict(model, (picture.read() for picture in pictures))
            for picture, own in zip(pictures, said, strict=True):
                truth, found = self.classes[picture.label], self.classes[int(own.argmax())]
                row = {"set": name, "name": picture.name, "label": truth, "found": found}
                each = zip(self.classes, own.tolist(), strict=True)
                rows.append({**row, **{f"p_{one}": f"{share:.6f}" for one, share in each}})
        return rows

    @torch.no_grad()
    def predict(self, model: nn.Module, pictures: Iterable[ImageArray]) -> Tensor:
        """Class probabilities of (H, W, 3) uint8 pictures of any size: (N, classes), on the CPU.

        Pictures are taken one at a time, so that a generator never holds more than one of full
        size.
        """
        device, found = device_of(model), []
        small = (to_tensor(resized(picture, self.size)) for picture in pictures)
        while some := list(islice(small, BATCH)):
            found.append(model(torch.stack(some).to(device)).softmax(1).cpu())
        return torch.cat(found)

    def comparison_images(
        self, models: Sequence[nn.Module], labels: Sequence[str]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """The pictures that a network gets wrong, with what each one says."""
        for name, pictures in self.evaluation_sets.items():
            said = [self.predict(model, (one.read() for one in pictures)) for model in models]
            for number, picture in enumerate(pictures):
                own = [probabilities[number] for probabilities in said]
                if any(int(p.argmax()) != picture.label for p in own):
                    yield (
                        f"{name}_{picture.name.replace('/', '_')}",
                        self._caption(picture, labels, own),
                    )

    def _caption(
        self, picture: LabelledImage, labels: Sequence[str], said: Sequence[Tensor]
    ) -> ImageArray:
        side, line = 256, 18
        canvas = np.full((side + line * (len(labels) + 1), side, 3), 255, np.uint8)
        canvas[:side] = cv2.resize(picture.read(), (side, side), interpolation=cv2.INTER_CUBIC)
        lines = [f"is {self.classes[picture.label]}"]
        lines += [
            f"{label}: {self.classes[int(p.argmax())]} {float(p.max()):.2f}"
            for label, p in zip(labels, said, strict=True)
        ]
        for i, text in enumerate(lines, 1):
            place = (4, side + line * i - 5)
            cv2.putText(
                canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA
            )
        return canvas

    @property
    def native_size(self) -> tuple[int, int]:
        return self.size, self.size

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        """The channels of every block; the classifier's outputs stay."""
        example = self.example(self.input_size).to(device_of(model))
        return channel_groups(model, example, "channels", [model.get_submodule("head")])

    def taps(self, model: nn.Module) -> list[str]:
        """The end of each block."""
        blocks = model.get_submodule("blocks")
        return [f"blocks.{name}" for name, _ in blocks.named_children()]


def load_labelled(
    pictures: SamplesConfig, classes: Sequence[str], validation: bool
) -> list[LabelledImage]:
    """The pictures a section of the configuration asks for.

    Raises:
        KdpError: the kind is none of this task's or has other classes, or a folder is missing or
            empty.
    """
    if isinstance(pictures, EmbeddedSamples):
        check_embedded(classes, CLASSES, "'folders'")
        return toy_faces(validation)
    if not isinstance(pictures, FolderSamples):
        raise KdpError(
            f"pictures with classes are of the kind 'folders' (with `folder`) or 'embedded', "
            f"not {pictures.kind!r}"
        )
    return class_folders(pictures.folder, classes)
