"""What a student minimises: the loss of its task and what it learns from its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kdp.config import DistillConfig
from kdp.devices import device_of
from kdp.distillation.alignment import Alignments, Projections, Widths, widths_of
from kdp.distillation.losses import Pairs, make_loss, precise
from kdp.distillation.schedules import factor
from kdp.distillation.teacher import Targets, TargetSource
from kdp.errors import KdpError
from kdp.models.taps import Taps

Batch = dict[str, Tensor]
Adapter = Callable[[Pairs], Pairs]
"""Makes a student's features comparable with those of a teacher."""


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
        confidence_map: an output -> how sure it is at every position of the taps, one after
            another, (B, positions).

    Attributes:
        alignments: learn with the student.

    Raises:
        KdpError: an unknown loss, option or tap.
    """

    def __init__(
        self,
        config: DistillConfig,
        student: nn.Module,
        teachers: TargetSource,
        taps: Mapping[str, str],
        inputs: Callable[[Batch], Tensor],
        task_loss: Callable[[Tensor, Batch], Tensor],
        steps: int,
        seed: int,
        probe: Batch,
        confidence_map: Callable[[Tensor], Tensor],
    ) -> None:
        self.config, self.inputs, self.task_loss = config, inputs, task_loss
        self.steps, self.seed, self.teachers = steps, seed, teachers
        self.losses = {name: make_loss(name, c.options) for name, c in config.losses.items()}
        needed = compares_features(config)
        if needed and not taps:
            raise KdpError("distill.taps: a loss compares features, but no module is named")
        self.names = dict(taps) if needed else {}
        self.taps = Taps(student, list(self.names))
        self.confidence_map = confidence_map
        widths = self._widths(student, probe) if self.names else []
        aligned = [Alignments(*pair, every=self._aligns()) for pair in widths]
        projects = any(bound.loss.projected for bound in self.losses.values())
        projected = [Projections(*pair) for pair in widths] if projects else []
        self.alignments = nn.ModuleList([*aligned, *projected])
        self._adapters = {name: self._adapter(name, aligned, projected) for name in self.losses}

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
                if bound.loss.compares == "output"
                else self._of_features(name, pairs, targets.output, step)
            )
        return self._total(parts, step), parts

    def _of_features(self, name: str, pairs: list[Pairs], output: Tensor, step: int) -> Tensor:
        bound, adapters = self.losses[name], self._adapters[name]
        weights = self._weights(output, pairs[0]) if bound.loss.weighted else None
        total = torch.zeros((), device=output.device)
        for share, own, adapt in zip(self.teachers.shares, pairs, adapters, strict=True):
            total = total + share * bound(adapt(own), self._random(step), weights)
        return total

    def _adapter(
        self, name: str, aligned: list[Alignments], projected: list[Projections]
    ) -> Sequence[Adapter]:
        """What a loss reads the features through, for each teacher."""
        loss = self.losses[name].loss
        if loss.projected:
            return projected
        if not loss.any_width:
            return aligned
        if self.config.losses[name].align:
            return [one.students for one in aligned]
        return [lambda pairs: pairs for _ in aligned]

    def _aligns(self) -> bool:
        return any(loss.align for loss in self.config.losses.values())

    def _weights(self, output: Tensor, pairs: Pairs) -> dict[str, Tensor]:
        """How sure the teachers are at the positions of each tap, of which the largest is first."""
        sizes = [teacher[0, 0].numel() for _, teacher in pairs.values()]
        sure_BP = precise(self.confidence_map(output))
        if sum(sizes) != sure_BP.shape[1]:
            raise KdpError(
                f"distill.taps: {', '.join(pairs)} have {sum(sizes)} positions, and the teacher's "
                f"output has {sure_BP.shape[1]}: name the modules that its head reads"
            )
        if sizes != sorted(sizes, reverse=True):
            raise KdpError(
                f"distill.taps: {', '.join(pairs)} must be named as the teacher's head reads them, "
                "the largest map first"
            )
        return dict(zip(pairs, sure_BP.split(sizes, 1), strict=True))

    def _pairs(self, features: dict[str, Tensor], targets: Targets) -> list[Pairs]:
        """Features of the student beside those of each teacher, by the student's names."""
        return [
            {mine: (_ran(features, mine), _ran(theirs, name)) for mine, name in self.names.items()}
            for theirs in targets.features
        ]

    @torch.no_grad()
    def _widths(self, student: nn.Module, probe: Batch) -> list[tuple[Widths, Widths]]:
        """Of the student's features and of each teacher's."""
        training, device = student.training, device_of(student)
        probe = {name: tensor.to(device) for name, tensor in probe.items()}
        with self.taps as features:
            student.eval()(self.inputs(probe))
        student.train(training)
        pairs = self._pairs(features, self.teachers(probe))
        return [
            (
                widths_of({name: pair[0] for name, pair in own.items()}),
                widths_of({name: pair[1] for name, pair in own.items()}),
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
    return any(
        make_loss(n, c.options).loss.compares == "features" for n, c in config.losses.items()
    )


def compares_outputs(config: DistillConfig) -> bool:
    """Whether any of the losses compares what the networks say of the classes, or their pictures.

    Raises:
        KdpError: an unknown loss or option.
    """
    return any(make_loss(n, c.options).loss.compares == "output" for n, c in config.losses.items())


def compares_widths(config: DistillConfig) -> bool:
    """Whether any of the losses compares features that must have the teacher's width.

    Raises:
        KdpError: an unknown loss or option.
    """
    losses = [make_loss(n, c.options).loss for n, c in config.losses.items()]
    return any(
        loss.compares == "features" and not (loss.any_width or loss.projected) for loss in losses
    )


def _ran(features: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in features:
        raise KdpError(f"distill.taps: the module {name!r} does not run; name another")
    return precise(features[name])
