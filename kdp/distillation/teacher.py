"""The networks that are learnt from: one or several, running or written down."""

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
"""Of what `kdp teach` wrote down, among the entries of a batch."""


@dataclass(frozen=True)
class Targets:
    """What teachers make of a batch.

    Attributes:
        output: the mean of their outputs (of their logits, where they classify), by share.
        features: of each teacher, by the name of the tap in the teacher.
    """

    output: Tensor
    features: list[dict[str, Tensor]]

    def flat(self) -> dict[str, Tensor]:
        """One dict, as a batch carries it."""
        named = {
            f"{PREFIX}{number}.{tap}": feature
            for number, features in enumerate(self.features)
            for tap, feature in features.items()
        }
        return {f"{PREFIX}output": self.output, **named}


class TargetSource(Protocol):
    """Where targets come from; `shares` are the weights of the teachers and sum to 1."""

    shares: list[float]

    def __call__(self, batch: Batch) -> Targets: ...


class Teacher:
    """A frozen network: eval mode, no gradients, never updated, in its own (full) precision.

    Args:
        model: the network; it is frozen in place, and moved to where its input is.
        names: the modules whose features are wanted.

    Raises:
        KdpError: the network has no such module.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.model = model.eval().requires_grad_(False)
        self.taps = Taps(model, names)
        self.device: torch.device | None = None

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Output, and features by tap."""
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
        names: the modules whose features are wanted, in every teacher.
        inputs: what networks read, out of a batch.
        shares: relative weight of each; equal where not given.

    Raises:
        KdpError: a teacher has no such module.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        names: Sequence[str],
        inputs: Callable[[dict[str, Tensor]], Tensor],
        shares: Sequence[float] | None = None,
    ) -> None:
        self.teachers = [Teacher(model, names) for model in models]
        self.inputs = inputs
        self.shares = shares_of(len(models), shares)

    def __call__(self, batch: Batch) -> Targets:
        x = self.inputs(dict(batch))
        found = [teacher(x) for teacher in self.teachers]
        shapes = [tuple(output.shape) for output, _ in found]
        if len(set(shapes)) > 1:
            raise KdpError(f"the teachers' outputs cannot be averaged: their shapes are {shapes}")
        weighted = [share * out for share, (out, _) in zip(self.shares, found, strict=True)]
        output = found[0][0] if len(found) == 1 else torch.stack(weighted).sum(0)
        return Targets(output, [features for _, features in found])


class CachedTeacher:
    """Targets that `kdp teach` wrote down and the data set added to each sample.

    Args:
        teachers: how many there are.
        shares: relative weight of each; equal where not given.
    """

    def __init__(self, teachers: int, shares: Sequence[float] | None = None) -> None:
        self.shares = shares_of(teachers, shares)

    def __call__(self, batch: Batch) -> Targets:
        features: list[dict[str, Tensor]] = [{} for _ in self.shares]
        for key, tensor in batch.items():
            number, _, tap = key.removeprefix(PREFIX).partition(".")
            if key.startswith(PREFIX) and tap:
                features[int(number)][tap] = tensor
        return Targets(batch[f"{PREFIX}output"], features)


def shares_of(teachers: int, given: Sequence[float] | None) -> list[float]:
    """Relative weights of so many teachers, of sum 1; equal where none are given."""
    shares = list(given or [1.0] * teachers)
    return [share / sum(shares) for share in shares]
