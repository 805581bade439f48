"""What a student minimises: the loss of its task and what it learns from its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from kdp.config import DistillConfig
from kdp.devices import device_of
from kdp.distillation.alignment import Alignments, widths_of
from kdp.distillation.losses import Pairs, make_loss, precise
from kdp.distillation.schedules import factor
from kdp.distillation.taps import Taps
from kdp.distillation.teacher import Source, Targets
from kdp.errors import KdpError

Batch = dict[str, Tensor]


class Distiller:
    """task_weight * task loss + the sum of weight * schedule * distillation loss.

    Called as the training loop calls an objective: (model, batch, step) -> the total and its
    parts by name, unweighted: `task` and one for each loss of the configuration. Outputs are
    compared with the mean output of the teachers, features with those of each, by its share.

    Args:
        config: losses, weights, schedules.
        student: the network before any wrapper; features are read off its own modules.
        teachers: say what there is to learn of a batch.
        taps: modules of the student whose features are compared -> those of the teachers.
        inputs: what the networks read, out of a batch.
        task_loss: (output, batch) -> the loss against the ground truth.
        steps: of the whole run.
        seed: of what the losses draw; a step draws the same whenever it runs.
        probe: a batch to see the widths of the features with.

    Attributes:
        alignments: learn with the student, one set per teacher.

    Raises:
        KdpError: an unknown loss, option or tap.
    """

    def __init__(
        self,
        config: DistillConfig,
        student: nn.Module,
        teachers: Source,
        taps: Mapping[str, str],
        inputs: Callable[[Batch], Tensor],
        task_loss: Callable[[Tensor, Batch], Tensor],
        steps: int,
        seed: int,
        probe: Batch,
    ) -> None:
        self.config, self.inputs, self.task_loss = config, inputs, task_loss
        self.steps, self.seed, self.teachers = steps, seed, teachers
        self.losses = {name: make_loss(name, c.options) for name, c in config.losses.items()}
        needed = compares_features(config)
        if needed and not taps:
            raise KdpError("distill.taps: a loss compares features, but no module is named")
        self.names = dict(taps) if needed else {}
        self.taps = Taps(student, list(self.names))
        self._alignments = self._align(student, probe) if self.names else []
        self.alignments = nn.ModuleList(self._alignments)

    def __call__(
        self, model: nn.Module, batch: Batch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with self.taps as features:
            output = model(self.inputs(batch))
        targets = self.teachers(batch)
        parts = {"task": self.task_loss(output, batch)}
        outputs: Pairs = {"output": (output, targets.output)}
        pairs = self._pairs(features, targets)
        for name, bound in self.losses.items():
            parts[name] = (
                bound(outputs, self._random(step))
                if bound.loss.of == "output"
                else self._of_features(name, pairs, step)
            )
        return self._total(parts, step), parts

    def _of_features(self, name: str, pairs: list[Pairs], step: int) -> Tensor:
        bound, align = self.losses[name], self.config.losses[name].align
        total = torch.zeros((), device=next(iter(pairs[0].values()))[0].device)
        for share, own, aligned in zip(self.teachers.shares, pairs, self._alignments, strict=True):
            if bound.loss.any_width:
                compared = aligned.students(own) if align else own
            else:
                compared = aligned(own)
            total = total + share * bound(compared, self._random(step))
        return total

    def _pairs(self, features: dict[str, Tensor], targets: Targets) -> list[Pairs]:
        """Features of the student beside those of each teacher, by the student's names."""
        return [
            {mine: (_ran(features, mine), _ran(theirs, name)) for mine, name in self.names.items()}
            for theirs in targets.features
        ]

    @torch.no_grad()
    def _align(self, student: nn.Module, probe: Batch) -> list[Alignments]:
        training, device = student.training, device_of(student)
        probe = {name: tensor.to(device) for name, tensor in probe.items()}
        with self.taps as features:
            student.eval()(self.inputs(probe))
        student.train(training)
        pairs = self._pairs(features, self.teachers(probe))
        return [
            Alignments(
                widths_of({name: pair[0] for name, pair in own.items()}),
                widths_of({name: pair[1] for name, pair in own.items()}),
                every=any(loss.align for loss in self.config.losses.values()),
            )
            for own in pairs
        ]

    def _total(self, parts: dict[str, Tensor], step: int) -> Tensor:
        total = self.config.task_weight * parts["task"]
        for name, config in self.config.losses.items():
            weight = config.weight * factor(config, step, self.steps)
            total = total + weight * parts[name]
        return total

    def _random(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)


def compares_features(config: DistillConfig) -> bool:
    """Whether any of the losses needs taps.

    Raises:
        KdpError: an unknown loss or option.
    """
    return any(make_loss(n, c.options).loss.of == "features" for n, c in config.losses.items())


def compares_widths(config: DistillConfig) -> bool:
    """Whether any of the losses compares features that must have the teacher's width.

    Raises:
        KdpError: an unknown loss or option.
    """
    losses = [make_loss(n, c.options).loss for n, c in config.losses.items()]
    return any(loss.of == "features" and not loss.any_width for loss in losses)


def _ran(features: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in features:
        raise KdpError(f"distill.taps: the module {name!r} does not run; name another")
    return precise(features[name])
