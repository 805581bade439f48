"""`kdp infer` for acoustic scenes: sounds are labelled, and make a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdp.config import Config
from kdp.data.audio import SUFFIXES, read_timed
from kdp.data.scenes import Clip
from kdp.data.segments import Segment, segments
from kdp.errors import KdpError
from kdp.serialize import csv_text
from kdp.tasks.predictor import TABLE, InferOptions, TableFormat
from kdp.tasks.scenes.task import BATCH, AcousticScenes
from kdp.types import Arch


@dataclass(frozen=True)
class ScenePrediction:
    """The scene of a sound.

    Attributes:
        classes: names, in the order of the network's outputs.
        probabilities: (classes,), the mean over the sound's segments.
    """

    classes: Sequence[str]
    probabilities: Tensor
    part_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def scene(self) -> str:
        """The class of the highest probability."""
        return self.classes[int(self.probabilities.argmax())]

    def plain(self) -> dict[str, Any]:
        """Names of columns are those of labelled boxes."""
        return {"class": self.scene, "probability": round(float(self.probabilities.max()), 4)}


def submission(rows: Sequence[tuple[Path, ScenePrediction]]) -> str:
    """The system output of the DCASE challenge, Task 1, as its validator of 2024 reads it.

    Tab-separated: name of the file without its folder, predicted scene, and the probability of
    each class, in alphabetical order. The validator:
    github.com/toni-heittola/dcase2024_task1_submission_validator.
    """
    classes = sorted(rows[0][1].classes)
    lines = []
    for file, prediction in rows:
        values = prediction.probabilities.tolist()
        by_class = dict(zip(prediction.classes, values, strict=True))
        probabilities = (f"{by_class[name]:.6g}" for name in classes)
        lines.append([file.name, prediction.scene, *probabilities])
    return csv_text(["filename", "scene_label", *classes], lines, delimiter="\t")


class SceneLabeller:
    """Classifies sounds of any length and sampling rate, segment by segment as evaluation does.

    Args:
        model: in eval mode, on its device.
        arch: of the model.
        config: the whole configuration.
        options: none of them applies.
    """

    options = TABLE
    kind = "a classifier of sounds"
    action = "label sounds"
    noun = "sound"
    suffixes = SUFFIXES
    formats: Mapping[str, TableFormat] = {"dcase": TableFormat(submission, unique_names=True)}

    def __init__(self, model: nn.Module, arch: Arch, config: Config, options: InferOptions) -> None:
        self._model, self._task = model, AcousticScenes(arch, config)

    def read(self, path: Path) -> list[Segment]:
        """The segments of a file.

        Raises:
            KdpError: it cannot be read, or there is nothing to hear in it.
        """
        rate = self._task.settings.sample_rate
        wave, seconds = read_timed(path, rate)
        if not wave.any():
            raise KdpError(f"the sound {path} is silent: all its samples are 0")
        return segments([Clip(path.name, 0, "", "", lambda: wave, lambda: seconds, (path,), rate)])

    def passes(self, sample: Sequence[Segment]) -> int:
        return math.ceil(len(sample) / BATCH)

    def __call__(self, sample: Sequence[Segment]) -> ScenePrediction:
        """The mean of the segments' probabilities."""
        probabilities = self._task.predict(self._model, sample)
        return ScenePrediction(self._task.classes, probabilities.double().mean(0))
