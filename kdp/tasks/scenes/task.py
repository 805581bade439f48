"""Acoustic scenes: data, loss, accuracy by class and by device, and the prunable channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.config import Config, EmbeddedSamples, SamplesConfig
from kdp.data.audio import RATE
from kdp.data.esc50 import esc50_folder
from kdp.data.mel import LogMel, freq_mix_style, frequency_mask
from kdp.data.scenes import Clip, held_out, scene_folder, tau_folder
from kdp.data.segments import (
    Segment,
    SegmentDataset,
    segments,
    votes,
    waves,
)
from kdp.data.toy_scenes import toy_scenes
from kdp.devices import device_of
from kdp.errors import KdpError
from kdp.measure.classification import by_part, class_mean, divergence
from kdp.models.mobile import SCENES
from kdp.progress import Advance
from kdp.pruning.dependency import channel_groups
from kdp.pruning.groups import Group
from kdp.tasks.base import Batch, Metrics, Prediction
from kdp.tasks.evaluation import no_progress
from kdp.tasks.fixed_size import FixedSizeTask, check_embedded, class_columns
from kdp.tasks.scenes.front_end import front_end
from kdp.tasks.scenes.section import AudioOptions, Esc50Samples, SceneSamples
from kdp.types import Arch

BATCH = 64
DEVICE_GROUPS = {
    "real": ("a", "b", "c"),
    "seen": ("s1", "s2", "s3"),
    "unseen": ("s4", "s5", "s6"),
}
"""TAU's devices: real ones, simulated ones that the training data has, and those it lacks."""


class AcousticScenes(FixedSizeTask):
    """The task of the networks for acoustic scenes; see `kdp.tasks.base.Task`."""

    primary_metric = "macro_accuracy"
    headline_metrics = ("macro_accuracy", "accuracy", "clip_macro_accuracy")

    def __init__(self, arch: Arch, config: Config) -> None:
        self.classes = tuple(arch.args.get("classes", SCENES))
        super().__init__(arch, config)
        self.settings = front_end(arch, config)
        self.mel = LogMel(self.settings)

    @property
    def native_size(self) -> tuple[int, int]:
        """Mel bins and frames of one second."""
        return self.settings.n_mels, self.settings.frames

    @property
    def metric_protocol(self) -> str:
        settings = f" ({self.settings.text})" if self.settings.text else ""
        return f"{len(self.classes)} scenes, 1 s of log-mel{settings}; macro: mean over classes"

    def prepare(self, batch: Batch, augment: bool = True) -> Batch:
        """Log-mel of the waves, with Freq-MixStyle and frequency masks while training."""
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

    def sample_metrics(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"accuracy": output.argmax(1) == batch["label"]}

    def output_distance(self, output: Tensor, reference: Tensor) -> Tensor:
        """KL(softmax(reference) || softmax(output)) of each segment."""
        return divergence(output, reference)

    def samples(self, length: int, seed: int, augment: bool) -> SegmentDataset:
        roll = self.config.data.options(AudioOptions).audio.roll if augment else 0.0
        return SegmentDataset(self.training_samples, seed=seed, roll=roll, length=length)

    @property
    def sample_counts(self) -> dict[str, int]:
        """Segments, not clips."""
        counts = {name: len(samples) for name, samples in self.evaluation_sets.items()}
        return {"training": len(segments(self.training_samples)), **counts}

    def load(self, section: SamplesConfig, validation: bool) -> list[Clip]:
        return load_clips(section, self.classes, validation, self.settings.sample_rate)

    @cached_property
    def _evaluation(self) -> dict[str, list[Clip]]:
        sections = self.config.evaluation
        return {name: self.load(section, validation=True) for name, section in sections.items()}

    @cached_property
    def evaluation_sets(self) -> dict[str, list[Segment]]:
        """The segments to evaluate on, by set."""
        return {name: segments(clips) for name, clips in self._evaluation.items()}

    def evaluate_set(
        self, models: Sequence[nn.Module], samples: Sequence[Segment], advance: Advance
    ) -> list[Metrics]:
        """Accuracies (0..1): macro, overall, of clips, by class and by device."""
        scores = self.predict_all(models, samples, advance)
        return [self._metrics(own, samples) for own in scores]

    def validate_set(self, model: nn.Module, samples: Sequence[Segment]) -> Metrics:
        (logits,) = self._outputs([model], samples)
        loss = self.loss(logits, {"label": _labels(samples)})
        return {**self._metrics(logits.softmax(1), samples), "loss": float(loss)}

    def _metrics(self, scores: Tensor, samples: Sequence[Segment]) -> Metrics:
        labels = _labels(samples)
        correct = scores.argmax(1) == labels
        clip_labels, clip_votes = votes(scores, samples)
        devices = [segment.clip.device for segment in samples]
        return {
            "macro_accuracy": class_mean(labels, correct),
            "accuracy": float(correct.double().mean()),
            "clip_macro_accuracy": class_mean(clip_labels, clip_labels == clip_votes),
            **by_part("class", [self.classes[label] for label in labels], correct),
            **by_part("device", devices, correct),
            **by_device_group(devices, correct),
        }

    def predict_set(self, model: nn.Module, samples: Sequence[Segment]) -> Iterator[Prediction]:
        for segment, own in zip(samples, self.predict(model, samples), strict=True):
            clip, start = segment.clip, f"{segment.start / segment.clip.rate:g}"
            row = {"clip": clip.name, "start": start, "device": clip.device}
            yield {**row, **class_columns(self.classes, clip.label, own)}

    def predict(self, model: nn.Module, samples: Sequence[Segment]) -> Tensor:
        """Class probabilities of segments: (N, classes), on the CPU."""
        return self.predict_all([model], samples)[0]

    def predict_all(
        self,
        models: Sequence[nn.Module],
        samples: Sequence[Segment],
        advance: Advance = no_progress,
    ) -> list[Tensor]:
        """`predict` of several networks; each clip is decoded once."""
        return [logits.softmax(1) for logits in self._outputs(models, samples, advance)]

    @torch.no_grad()
    def _outputs(
        self,
        models: Sequence[nn.Module],
        samples: Sequence[Segment],
        advance: Advance = no_progress,
    ) -> list[Tensor]:
        """Logits of several networks: (N, classes) each, on the CPU."""
        outputs: list[list[Tensor]] = [[] for _ in models]
        remaining = waves(samples)
        while batch := list(islice(remaining, BATCH)):
            wave = torch.stack(batch)
            for model, own in zip(models, outputs, strict=True):
                x = self._mel(wave.to(device_of(model)))
                own.append(model(x).float().cpu())
            advance(len(batch))
        return [torch.cat(own) for own in outputs]

    def example(self, size: Sequence[int]) -> Tensor:
        return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))

    def groups(self, model: nn.Module) -> list[Group]:
        """The hidden channels of every block.

        Channels between blocks stay: residual additions couple them across blocks. The outputs of
        the head are the classes.
        """
        example = self.example((64, 33)).to(device_of(model))
        ignored = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and not {"expand", "depthwise"} & set(name.split("."))
        ]
        return channel_groups(model, example, "hidden", ignored)

    def taps(self, model: nn.Module) -> list[str]:
        """The output of each block."""
        blocks = model.get_submodule("blocks")
        return [f"blocks.{name}" for name, _ in blocks.named_children()]


def by_device_group(devices: Sequence[str], correct: Tensor) -> Metrics:
    """Accuracy over the samples of each of `DEVICE_GROUPS`, where they are of more than one."""
    group_of = {device: group for group, own in DEVICE_GROUPS.items() for device in own}
    known = torch.tensor([device in group_of for device in devices])
    groups = [group_of[device] for device in devices if device in group_of]
    if len(set(groups)) < 2:
        return {}
    return by_part("device group", groups, correct[known])


def _labels(samples: Sequence[Segment]) -> Tensor:
    return torch.tensor([segment.clip.label for segment in samples])


def load_clips(
    section: SamplesConfig, classes: Sequence[str], validation: bool, rate: int = RATE
) -> list[Clip]:
    """The clips that a section of the configuration describes, at a sampling rate in Hz.

    Raises:
        KdpError: the kind is of another task, or the folder is missing or incomplete.
    """
    if isinstance(section, EmbeddedSamples):
        check_embedded(classes, SCENES, "'scenes'")
        return toy_scenes(validation, rate)
    if isinstance(section, Esc50Samples):
        own = section.model_dump(include={"folder", "part", "test_folds", "esc10", "seed", "val"})
        return esc50_folder(classes=classes, rate=rate, **own)
    if not isinstance(section, SceneSamples):
        raise KdpError(
            f"audio samples are of kind 'scenes', 'esc50' or 'embedded', not {section.kind!r}"
        )
    # What a network is tested on does not depend on how much it is trained on.
    test = validation and section.part is None
    default = "test.csv" if test else f"split{section.subset or 100}.csv"
    clips = scene_folder(tau_folder(section.folder), section.split or default, classes, rate)
    return held_out(clips, section.part, section.seed, section.val) if section.part else clips
