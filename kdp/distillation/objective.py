"""What a student minimises: the loss of its task and what it learns from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdp.config import DistillConfig
from kdp.distillation.losses import Pairs, make_loss
from kdp.distillation.schedules import factor
from kdp.distillation.taps import Taps
from kdp.distillation.teacher import Teacher
from kdp.errors import KdpError

Batch = dict[str, Tensor]


class Distiller:
    """task_weight * task loss + the sum of weight * schedule * distillation loss.

    Called as the training loop calls an objective: (model, batch, step) -> the total and its
    parts by name, unweighted: `task` and one for each loss of the configuration.

    Args:
        config: losses, weights, schedules.
        student: the network before any wrapper; features are read off its own modules.
        teacher: frozen here.
        taps: modules whose features are compared, in both networks.
        inputs: what the networks read, out of a batch.
        task_loss: (output, batch) -> the loss against the ground truth.
        steps: of the whole run.
        seed: of what the losses draw; a step draws the same whenever it runs.

    Raises:
        KdpError: an unknown loss, option or tap.
    """

    def __init__(
        self,
        config: DistillConfig,
        student: nn.Module,
        teacher: nn.Module,
        taps: Sequence[str],
        inputs: Callable[[Batch], Tensor],
        task_loss: Callable[[Tensor, Batch], Tensor],
        steps: int,
        seed: int,
    ) -> None:
        self.config, self.inputs, self.task_loss = config, inputs, task_loss
        self.steps, self.seed = steps, seed
        self.losses = {name: make_loss(name, c.options) for name, c in config.losses.items()}
        needed = any(loss.compares == "features" for loss in self.losses.values())
        names = taps if needed else ()
        if needed and not names:
            raise KdpError("distill.taps: a loss compares features, but no module is named")
        self.names = tuple(names)
        self.taps, self.teacher = Taps(student, names), Teacher(teacher, names)

    def __call__(
        self, model: nn.Module, batch: Batch, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = self.inputs(batch)
        with self.taps as features:
            output = model(inputs)
        target, targets = self.teacher(inputs)
        pairs: dict[str, Pairs] = {
            "output": {"output": (output, target)},
            "features": {name: (_ran(features, name), _ran(targets, name)) for name in self.names},
        }
        parts = {"task": self.task_loss(output, batch)}
        for name, loss in self.losses.items():
            parts[name] = loss(pairs[loss.compares], self._random(step))
        return self._total(parts, step), parts

    def _total(self, parts: dict[str, Tensor], step: int) -> Tensor:
        total = self.config.task_weight * parts["task"]
        for name, config in self.config.losses.items():
            weight = config.weight * factor(config.schedule, step, self.steps)
            total = total + weight * parts[name]
        return total

    def _random(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)


def _ran(features: dict[str, Tensor], name: str) -> Tensor:
    if name not in features:
        raise KdpError(f"distill.taps: the module {name!r} does not run; name another")
    return features[name]
