"""Teachers: one or several networks that run beside the student, or whose outputs are cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.models.taps import Taps

Batch = Mapping[str, Tensor]
PREFIX = "teacher."
"""Marks the entries of a batch that `kdp cache-targets` computed."""


@dataclass(frozen=True)
class Targets:
    """What the student is compared with for one batch.

    Attributes:
        output: mean output of the teachers (for classifiers, of their logits), weighted by share.
        features: for each teacher, the tapped features by the tap's name in the teacher.
    """

    output: Tensor
    features: list[dict[str, Tensor]]

    def flat(self) -> dict[str, Tensor]:
        """As entries of a batch: `teacher.output` and `teacher.<number>.<tap>`."""
        features = {
            f"{PREFIX}{number}.{tap}": feature
            for number, of_teacher in enumerate(self.features)
            for tap, feature in of_teacher.items()
        }
        return {f"{PREFIX}output": self.output, **features}


class TargetSource(Protocol):
    """Where targets come from. `shares` are the weights of the teachers and sum to 1."""

    shares: list[float]

    def __call__(self, batch: Batch) -> Targets: ...


class Teacher:
    """A frozen network: in eval mode, without gradients, in its own precision.

    It is called outside of the wrappers of mixed precision and distributed training, so its
    targets are those of the full-precision network.

    Args:
        model: the network; frozen in place, and moved to the device of its input.
        taps: names of the modules to read features from.

    Raises:
        KdpError: the network has no such module.
    """

    def __init__(self, model: nn.Module, taps: Sequence[str]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.taps = Taps(model, taps)
        self.device: torch.device | None = None

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Output, and features by tap."""
        # Moved on first use: before it, the device of the batches is not known.
        if self.device != inputs.device:
            self.model.to(inputs.device)
            self.device = inputs.device
        with self.taps as features:
            output = self.model(inputs)
        return output, features


class TeacherEnsemble:
    """Teachers that run beside the student.

    Args:
        models: one or several; frozen in place.
        taps: names of the modules to read features from, in every teacher.
        inputs: takes the input of the networks out of a batch.
        shares: relative weight of each teacher; equal if not given.

    Raises:
        KdpError: a teacher has no such module.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        taps: Sequence[str],
        inputs: Callable[[dict[str, Tensor]], Tensor],
        shares: Sequence[float] | None = None,
    ) -> None:
        self.teachers = [Teacher(model, taps) for model in models]
        self.inputs = inputs
        self.shares = normalized_shares(len(models), shares)

    def __call__(self, batch: Batch) -> Targets:
        """Run all teachers on a batch.

        Raises:
            KdpError: the shapes of their outputs differ.
        """
        x = self.inputs(dict(batch))
        outputs, features = zip(*(teacher(x) for teacher in self.teachers), strict=True)
        shapes = [tuple(output.shape) for output in outputs]
        if len(set(shapes)) > 1:
            raise KdpError(f"cannot average the teachers' outputs: their shapes are {shapes}")
        weighted = [share * output for share, output in zip(self.shares, outputs, strict=True)]
        mean = outputs[0] if len(outputs) == 1 else torch.stack(weighted).sum(0)
        return Targets(mean, list(features))


class CachedTeacher:
    """Targets that `kdp cache-targets` computed and the data set adds to each sample.

    Args:
        teachers: number of teachers.
        shares: relative weight of each; equal if not given.
    """

    def __init__(self, teachers: int, shares: Sequence[float] | None = None) -> None:
        self.shares = normalized_shares(teachers, shares)

    def __call__(self, batch: Batch) -> Targets:
        """Collect the targets of a batch; the inverse of `Targets.flat`."""
        features: list[dict[str, Tensor]] = [{} for _ in self.shares]
        for key, tensor in batch.items():
            number, _, tap = key.removeprefix(PREFIX).partition(".")
            if key.startswith(PREFIX) and tap:
                features[int(number)][tap] = tensor
        return Targets(batch[f"{PREFIX}output"], features)


def normalized_shares(teachers: int, shares: Sequence[float] | None) -> list[float]:
    """Weights of the teachers that sum to 1; equal if none are given."""
    weights = list(shares or [1.0] * teachers)
    return [weight / sum(weights) for weight in weights]
