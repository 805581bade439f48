"""The distillation objective: task loss plus what the student learns from its teachers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from kdp.config import DistillConfig
from kdp.devices import device_of
from kdp.distillation.alignment import Alignments, Projections, Widths, widths_of
from kdp.distillation.losses import BoundLoss, Pairs, at_least_float32, make_loss
from kdp.distillation.schedules import weight_factor
from kdp.distillation.teacher import Targets, TargetSource
from kdp.errors import KdpError
from kdp.models.taps import Taps

Batch = dict[str, Tensor]
Adapter = Callable[[Pairs], Pairs]
"""Makes features of the student comparable with those of one teacher."""


class Distiller:
    """task_weight * task loss + sum of weight * schedule * distillation loss.

    Where the weights are relative to the sum of the task loss over the batch, the distillation
    losses are divided by its size instead: the proportions are the same, and learning rates keep
    their meaning.

    The training loop calls it as its objective: (model, batch, step) -> the total, and its parts
    by name before their weights ("task", and one per loss of the configuration). Outputs are
    compared with the mean output of the teachers; features with those of each teacher, and the
    results are averaged by the teachers' shares.

    Args:
        config: losses, weights and schedules.
        student: the network before any wrapper; features are read off its own modules.
        teachers: batch -> targets.
        taps: modules of the student whose features are compared -> those of the teachers.
        inputs: takes the input of the networks out of a batch.
        task_loss: (output, batch) -> the loss against the ground truth.
        steps: of the whole run.
        seed: of the losses that draw a sample; a step draws the same whenever it runs.
        probe: a batch to find the widths of the features with.
        confidence_map: output -> confidence at every position of the taps, one tap after another,
            (B, positions).
        task_reduction: of the task loss that the weights are relative to, `mean` or `sum`.

    Attributes:
        alignments: modules to train along with the student.

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
        task_reduction: Literal["mean", "sum"] = "mean",
    ) -> None:
        self.config, self.inputs, self.task_loss = config, inputs, task_loss
        self.steps, self.seed, self.teachers = steps, seed, teachers
        self.confidence_map, self.task_reduction = confidence_map, task_reduction
        self.losses = {name: make_loss(name, c.options) for name, c in config.losses.items()}
        reads_features = compares_features(config)
        if reads_features and not taps:
            raise KdpError("distill.taps: a loss compares features, but no module is named")
        self.teacher_taps = dict(taps) if reads_features else {}
        # On the student's modules, not on the wrapper that the loop calls: hooks there survive
        # DistributedDataParallel and mixed precision.
        self.taps = Taps(student, list(self.teacher_taps))
        widths = self._widths(student, probe) if self.teacher_taps else []
        self.alignments = self._add_alignments(widths)

    def __call__(
        self, model: nn.Module, batch: Batch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with self.taps as features:
            output = model(self.inputs(batch))
        targets = self.teachers(batch)
        self._check_shapes(output, targets.output)
        parts = {"task": self.task_loss(output, batch)}
        outputs: Pairs = {"output": (output, targets.output)}
        feature_pairs = self._feature_pairs(features, targets)
        for name, bound in self.losses.items():
            parts[name] = (
                bound(outputs, self._generator(step))
                if bound.loss.compares == "output"
                else self._feature_loss(name, feature_pairs, targets.output, step)
            )
        divisor = len(output) if self.task_reduction == "sum" else 1
        return self._total(parts, step, divisor), parts

    def _check_shapes(self, output: Tensor, target: Tensor) -> None:
        """Losses would broadcast, or fail without the name of a key."""
        compared = any(bound.loss.compares == "output" for bound in self.losses.values())
        if compared and output.shape != target.shape:
            shapes = [tuple(tensor.shape[1:]) for tensor in (output, target)]
            raise KdpError(
                f"distill: the student's output has shape {shapes[0]}, the teacher's {shapes[1]}"
            )

    def _add_alignments(self, widths: list[tuple[Widths, Widths]]) -> nn.ModuleList:
        """One set of alignments per teacher, and the adapters that apply them for each loss."""
        every_tap = any(loss.align for loss in self.config.losses.values())
        projects = any(bound.loss.projected for bound in self.losses.values())
        # The order of construction decides the initial weights: a run must not depend on which
        # loss asks first.
        aligned = [Alignments(*pair, every_tap=every_tap) for pair in widths]
        projected = [Projections(*pair) for pair in widths] if projects else []
        self._adapters = {
            name: self._adapters_for(name, aligned, projected) for name in self.losses
        }
        return nn.ModuleList([*aligned, *projected])

    def _feature_loss(
        self, name: str, feature_pairs: list[Pairs], teacher_output: Tensor, step: int
    ) -> Tensor:
        """A loss on features, averaged over the teachers by their shares."""
        bound, adapters = self.losses[name], self._adapters[name]
        weights = (
            self._position_weights(teacher_output, feature_pairs[0])
            if bound.loss.weighted
            else None
        )
        total = torch.zeros((), device=teacher_output.device)
        for share, pairs, adapt in zip(self.teachers.shares, feature_pairs, adapters, strict=True):
            # A new generator of the same seed for each teacher and loss: all compare one sample.
            total = total + share * bound(adapt(pairs), self._generator(step), weights)
        return total

    def _adapters_for(
        self, name: str, aligned: list[Alignments], projected: list[Projections]
    ) -> Sequence[Adapter]:
        """What the features pass before a loss compares them, one adapter per teacher."""
        loss = self.losses[name].loss
        if loss.projected:
            return projected
        if not loss.any_width:
            return aligned
        if self.config.losses[name].align:
            return [alignments.align_students for alignments in aligned]
        return [lambda pairs: pairs for _ in aligned]

    def _position_weights(self, teacher_output: Tensor, pairs: Pairs) -> dict[str, Tensor]:
        """The teachers' confidence at the positions of each tap, (B, positions) by tap.

        Raises:
            KdpError: the taps are not the feature maps of the teacher's output, largest first.
        """
        sizes = [teacher[0, 0].numel() for _, teacher in pairs.values()]
        confidence_BP = at_least_float32(self.confidence_map(teacher_output))
        if sum(sizes) != confidence_BP.shape[1]:
            raise KdpError(
                f"distill.taps: {', '.join(pairs)} have {sum(sizes)} positions, but the teacher's "
                f"output has {confidence_BP.shape[1]}: name the modules that its head reads"
            )
        # The output concatenates the maps from the largest to the smallest. In another order the
        # sum of the sizes would still fit, and weights would silently go to the wrong positions.
        if sizes != sorted(sizes, reverse=True):
            raise KdpError(
                f"distill.taps: name {', '.join(pairs)} in the order in which the teacher's head "
                "reads them, the largest map first"
            )
        return dict(zip(pairs, confidence_BP.split(sizes, 1), strict=True))

    def _feature_pairs(self, features: dict[str, Tensor], targets: Targets) -> list[Pairs]:
        """For each teacher the pairs (student, teacher) of features, by the student's tap."""
        return [
            {
                tap: _pair(_feature(features, tap), _feature(teacher_features, teacher_tap))
                for tap, teacher_tap in self.teacher_taps.items()
            }
            for teacher_features in targets.features
        ]

    @torch.no_grad()
    def _widths(self, student: nn.Module, probe: Batch) -> list[tuple[Widths, Widths]]:
        """For each teacher the widths of the student's features and of the teacher's."""
        training, device = student.training, device_of(student)
        probe = {name: tensor.to(device) for name, tensor in probe.items()}
        with self.taps as features:
            # In eval mode: the probe must not move the student's BatchNorm statistics.
            student.eval()(self.inputs(probe))
        student.train(training)
        return [
            (
                widths_of({name: pair[0] for name, pair in pairs.items()}),
                widths_of({name: pair[1] for name, pair in pairs.items()}),
            )
            for pairs in self._feature_pairs(features, self.teachers(probe))
        ]

    def _total(self, parts: dict[str, Tensor], step: int, divisor: int) -> Tensor:
        total = self.config.task_weight * parts["task"]
        for name, config in self.config.losses.items():
            weight = config.weight * weight_factor(config, step, self.steps)
            total = total + weight / divisor * parts[name]
        return total

    def _generator(self, step: int) -> torch.Generator:
        """A generator that depends on seed and step alone: a resumed run draws the same sample."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)


def compares_features(config: DistillConfig) -> bool:
    """True if any loss compares features, and therefore needs taps.

    Raises:
        KdpError: an unknown loss or option.
    """
    return any(bound.loss.compares == "features" for bound in _losses(config))


def compares_outputs(config: DistillConfig) -> bool:
    """True if any loss compares the networks' outputs.

    Raises:
        KdpError: an unknown loss or option.
    """
    return any(bound.loss.compares == "output" for bound in _losses(config))


def compares_widths(config: DistillConfig) -> bool:
    """True if any loss compares features that must have the teacher's width.

    Raises:
        KdpError: an unknown loss or option.
    """
    losses = [bound.loss for bound in _losses(config)]
    return any(
        loss.compares == "features" and not (loss.any_width or loss.projected) for loss in losses
    )


def _losses(config: DistillConfig) -> list[BoundLoss]:
    return [make_loss(name, c.options) for name, c in config.losses.items()]


def _pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both features, with the channels in memory where the student has them.

    Cached features have lost their layout. It decides that of the gradient, and with it how the
    layers that read the gradient round: a student must learn the same from cached targets.
    """
    last = torch.channels_last
    if student.ndim == teacher.ndim == 4 and student.is_contiguous(memory_format=last):
        return student, teacher.contiguous(memory_format=last)
    return student, teacher


def _feature(features: Mapping[str, Tensor], tap: str) -> Tensor:
    """The feature of a tap, at least in float32."""
    if tap not in features:
        raise KdpError(f"distill.taps: the module {tap!r} does not run; name another")
    return at_least_float32(features[tap])
