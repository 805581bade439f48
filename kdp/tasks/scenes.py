"""Acoustic scenes: data, loss, accuracy by class and by device, and the channels that may go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.config import Config, EmbeddedSamples, SamplesConfig
from kdp.data.audio import RATE
from kdp.data.mel import LogMel, freq_mix_style, frequency_mask
from kdp.data.scenes import Clip, scene_folder, tau_folder
from kdp.data.segments import (
    Segment,
    SegmentDataset,
    check_disjoint,
    segments,
    votes,
    waves,
)
from kdp.data.toy_scenes import toy_scenes
from kdp.devices import device_of
from kdp.errors import KdpError
from kdp.measure.classes import by_part, class_mean, divergence
from kdp.models.mobile import SCENES
from kdp.pruning.dependency import channel_groups
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics
from kdp.tasks.family import Family, check_embedded
from kdp.tasks.sections import AudioOptions, SceneSamples
from kdp.types import Arch

BATCH = 64
SECOND = (256, 65)
"""Mel bins and frames of one second."""


class AcousticScenes(Family):
    """The task of the mobile networks; see `kdp.tasks.base.Task`."""

    primary_metric = "macro_accuracy"
    native_size = SECOND

    def __init__(self, arch: Arch, config: Config) -> None:
        self.classes = tuple(arch.args.get("classes", SCENES))
        super().__init__(arch, config)
        self.mel = LogMel()
        self.reads = f"log-mel of 1 s at {RATE} Hz, (batch, 1, {SECOND[0]}, {SECOND[1]})"
        self.gives = "logits of the classes"

    @property
    def protocol(self) -> str:
        return f"{len(self.classes)} scenes, 1 s of log-mel; macro: mean over classes"

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        """Log-mel of the waves, mixed in style and masked where the configuration says so."""
        settings, x = self.config.data.options(AudioOptions).audio, self._mel(batch["wave"])
        if augment and self.config.data.augment:
            x = freq_mix_style(x, settings.mix_style, settings.mix_style_alpha)
            x = frequency_mask(x, settings.frequency_mask)
        return {**batch, "mel": x}

    def inputs(self, batch: Batch) -> Tensor:
        return batch["mel"]

    def _mel(self, wave: Tensor) -> Tensor:
        return self.mel.to(wave.device)(wave)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output, batch["label"])

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """KL(softmax(reference) || softmax(output)) of each segment."""
        return divergence(output, reference)

    def samples(self, length: int, seed: int, augment: bool) -> SegmentDataset:
        roll = self.config.data.options(AudioOptions).audio.roll if augment else 0.0
        return SegmentDataset(self.training_samples, seed=seed, roll=roll, length=length)

    def check_data(self) -> dict[str, int]:
        """Segments of every clip; no clip may be in training and evaluation."""
        for clips in self._evaluation.values():
            check_disjoint(self.training_samples, clips)
        counts = {name: len(found) for name, found in self.evaluation_sets.items()}
        return {"training": len(segments(self.training_samples)), **counts}

    def load(self, section: SamplesConfig, validation: bool) -> list[Clip]:
        return load_clips(section, self.classes, validation)

    @cached_property
    def _evaluation(self) -> dict[str, list[Clip]]:
        sets = self.config.evaluation
        return {name: self.load(one, validation=True) for name, one in sets.items()}

    @cached_property
    def evaluation_sets(self) -> dict[str, list[Segment]]:
        """The segments to judge by, by set."""
        return {name: segments(clips) for name, clips in self._evaluation.items()}

    def evaluate(self, model: nn.Module) -> dict[str, Metrics]:
        """Shares of right answers (0..1): macro, over all, of clips, by class and by device."""
        model.eval()
        return {name: self._evaluate(model, them) for name, them in self.evaluation_sets.items()}

    def _evaluate(self, model: nn.Module, them: Sequence[Segment]) -> Metrics:
        said = self.predict(model, them)
        labels = torch.tensor([segment.clip.label for segment in them])
        right = said.argmax(1) == labels
        true, found = votes(said, them)
        return {
            "macro_accuracy": class_mean(labels, right),
            "accuracy": float(right.double().mean()),
            "clip_macro_accuracy": class_mean(true, true == found),
            **by_part("class", [self.classes[label] for label in labels], right),
            **by_part("device", [segment.clip.device for segment in them], right),
        }

    def predictions(self, model: nn.Module) -> list[dict[str, str | int | float]]:
        model.eval()
        rows: list[dict[str, str | int | float]] = []
        for name, them in self.evaluation_sets.items():
            for segment, own in zip(them, self.predict(model, them), strict=True):
                clip, found = segment.clip, self.classes[int(own.argmax())]
                where = {"clip": clip.name, "start": f"{segment.start / RATE:g}"}
                row = {"set": name, **where, "device": clip.device}
                row |= {"label": self.classes[clip.label], "found": found}
                each = zip(self.classes, own.tolist(), strict=True)
                rows.append({**row, **{f"p_{one}": f"{share:.6f}" for one, share in each}})
        return rows

    @torch.no_grad()
    def predict(self, model: nn.Module, them: Sequence[Segment]) -> Tensor:
        """Class probabilities of segments: (N, classes), on the CPU."""
        device, found, rest = device_of(model), [], waves(them)
        while batch := list(islice(rest, BATCH)):
            x = self._mel(torch.stack(batch).to(device))
            found.append(model(x).float().softmax(1).cpu())
        return torch.cat(found)

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        """The hidden channels of every block; the channels between blocks and the head stay."""
        example = self.example((64, 33)).to(device_of(model))
        stay = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and not {"expand", "depthwise"} & set(name.split("."))
        ]
        return channel_groups(model, example, "hidden", stay)

    def taps(self, model: nn.Module) -> list[str]:
        """The end of each block."""
        blocks = model.get_submodule("blocks")
        return [f"blocks.{name}" for name, _ in blocks.named_children()]


def load_clips(sounds: SamplesConfig, classes: Sequence[str], validation: bool) -> list[Clip]:
    """The clips a section of the configuration asks for.

    Raises:
        KdpError: the kind is none of this task's, or the folder does not hold what it should.
    """
    if isinstance(sounds, EmbeddedSamples):
        check_embedded(classes, SCENES, "'scenes'")
        return toy_scenes(validation)
    if not isinstance(sounds, SceneSamples):
        raise KdpError(f"sounds are of the kind 'scenes' or 'embedded', not {sounds.kind!r}")
    default = "test.csv" if validation else "split100.csv"
    return scene_folder(tau_folder(sounds.folder), sounds.split or default, classes)
