"""The one training loop: teachers, students and fine-tuning differ in their objective only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Subset

from kdp.artifacts import Artifact, load, save
from kdp.config import TrainConfig
from kdp.errors import Interrupted, KdpError
from kdp.progress import progress, say
from kdp.training.curves import Curves
from kdp.training.interrupt import on_request
from kdp.training.schedule import learning_rate

Batch = dict[str, Tensor]
Params = dict[str, Tensor]
Objective = Callable[[nn.Module, Batch, int], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Job:
    """What to train, and on what.

    Attributes:
        model: the network, on any device.
        data: samples numbered by (step * batch + position); see `Task.training_data`.
        objective: (model, batch, step) -> the loss and its named parts.
        validate: model -> quality by set and metric.
        headline: the metric of the first set that picks the best; higher is better.
        settings: the optimisation.
        folder: where checkpoint and curves go.
        seed: of everything random outside the data.
        device: "auto", "cpu", "cuda", ...
        workers: processes that load data.
        extra: modules that learn beside the model and are not part of it.
        after_step: called on the model after every update, and on its average before use.
        signature: what a checkpoint must agree on to be resumed.
    """

    model: nn.Module
    data: Callable[[int], Dataset[Batch]]
    objective: Objective
    validate: Callable[[nn.Module], dict[str, dict[str, float]]]
    headline: str
    settings: TrainConfig
    folder: Path
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    extra: nn.Module = field(default_factory=nn.Module)
    after_step: Callable[[nn.Module], None] = lambda model: None
    signature: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """Weights after the last step and at the best validation, with their quality."""

    last: Params
    best: Params
    last_metrics: dict[str, dict[str, float]]
    best_metrics: dict[str, dict[str, float]]
    best_step: int
    device: str


def fit(job: Job, resume: bool = False) -> Result:
    """Train to the end, from the start or from the checkpoint in the job's folder.

    Raises:
        KdpError: the loss is not finite, or there is no checkpoint that fits.
        Interrupted: on SIGINT or SIGTERM, after writing a checkpoint.
    """
    return _Run(job, resume).run()


class _Run:
    """State of one training: network, average, optimizer, step, best so far."""

    def __init__(self, job: Job, resume: bool) -> None:
        self.job, self.settings = job, job.settings
        set_seed(job.seed)
        self.accelerator = Accelerator(
            cpu=job.device == "cpu",
            mixed_precision=self.settings.mixed_precision,
            log_with=list(self.settings.trackers) or None,
            project_dir=job.folder,
        )
        self.step = 0
        self.best: dict[str, Any] = {"value": -math.inf, "step": 0, "params": {}, "metrics": {}}
        self.average = self._average()
        learned = [*job.model.parameters(), *job.extra.parameters()]
        kind = torch.optim.AdamW if self.settings.weight_decay else torch.optim.Adam
        optimizer = kind(
            [p for p in learned if p.requires_grad],
            lr=self.settings.lr,
            betas=self.settings.betas,
            weight_decay=self.settings.weight_decay,
        )
        self.model, self.extra, self.optimizer = self.accelerator.prepare(
            job.model, job.extra, optimizer
        )
        if self.average:
            self.average.to(self.accelerator.device)
        self.checkpoint = job.folder / "checkpoint.pth"
        if resume:
            self._restore()
        if self.accelerator.is_main_process:
            self.curves = Curves(job.folder, self.step)
        if self.settings.trackers:
            self.accelerator.init_trackers("kdp", config=job.signature)

    def run(self) -> Result:
        with on_request() as interrupt:
            for batch in self._batches():
                self._update(batch)
                if interrupt.requested:
                    self._save_checkpoint()
                    raise Interrupted(f"stopped after step {self.step}; go on with --resume")
        metrics = self.best["metrics"] if self.best["step"] == self.step else self._validate()
        self.accelerator.end_training()
        return Result(
            last=self._params(),
            best=self.best["params"],
            last_metrics=self.last_metrics if hasattr(self, "last_metrics") else metrics,
            best_metrics=self.best["metrics"],
            best_step=self.best["step"],
            device=str(self.accelerator.device),
        )

    def _batches(self) -> Iterator[Batch]:
        """The batches from the current step on, with a progress bar."""
        size, total = self.settings.batch_size, self.settings.steps
        data = self.job.data(size * total)
        rest = Subset(data, range(size * self.step, size * total))
        loader = self.accelerator.prepare(
            DataLoader(
                rest,
                batch_size=size // self._shards(),
                num_workers=self.job.workers,
                persistent_workers=self.job.workers > 0,
            )
        )
        with progress("training", total, self.step) as advance:
            for batch in loader:
                yield batch
                advance(note=f"loss {self.loss:.4g}")

    def _shards(self) -> int:
        count = self.accelerator.num_processes
        if self.settings.batch_size % count:
            raise KdpError(
                f"batch_size {self.settings.batch_size} does not divide by {count} processes"
            )
        return count

    def _update(self, batch: Batch) -> None:
        started = time.perf_counter()
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        loss, parts = self.job.objective(self.model, batch, self.step)
        self.loss = float(loss.detach())
        if not math.isfinite(self.loss):
            raise KdpError(
                f"the loss is {self.loss} at step {self.step}: lower the learning rate or clip "
                f"gradients (clip_norm); the last checkpoint is {self.checkpoint}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.settings.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        plain = self.accelerator.unwrap_model(self.model)
        self.job.after_step(plain)
        if self.average:
            self.average.update_parameters(plain)
        self.step += 1
        self._report(parts, time.perf_counter() - started)

    def _report(self, parts: dict[str, Tensor], seconds: float) -> None:
        """Log, validate and write a checkpoint where the settings say so."""
        settings, last = self.settings, self.step == self.settings.steps
        if self.step % settings.log_every == 0 or last:
            numbers = {name: float(part.detach()) for name, part in parts.items()}
            self._log({"loss": self.loss, **numbers, "seconds": seconds})
        if self.step % settings.validate_every == 0 or last:
            self._validate()
        if self.step % settings.checkpoint_every == 0 and not last:
            self._save_checkpoint()

    def _log(self, numbers: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            lr = learning_rate(self.settings, self.step - 1)
            self.curves.add({"step": self.step, "lr": lr, **numbers})
        if self.settings.trackers:
            self.accelerator.log(numbers, step=self.step)

    def _validate(self) -> dict[str, dict[str, float]]:
        """Quality of the averaged weights (or the plain ones); keeps the best."""
        metrics: dict[str, dict[str, float]] = {}
        if self.accelerator.is_main_process:
            metrics = self.job.validate(self._subject())
            flat = {f"{s}/{k}": v for s, values in metrics.items() for k, v in values.items()}
            self._log(flat)
            self.curves.draw()
            say(f"step {self.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in flat.items()))
            value = next(iter(metrics.values()))[self.job.headline]
            if value > self.best["value"]:
                params = {k: v.clone() for k, v in self._params().items()}
                self.best = {"value": value, "step": self.step, "params": params}
                self.best["metrics"] = metrics
        self.last_metrics = metrics
        self.accelerator.wait_for_everyone()
        return metrics

    def _average(self) -> AveragedModel | None:
        decay = self.settings.ema_decay
        if not decay:
            return None

        def blend(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            # A young average forgets faster, so that it is not held back by the random start.
            keep = min(decay, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(average, current, 1 - keep)

        return AveragedModel(self.job.model, multi_avg_fn=blend)

    def _subject(self) -> nn.Module:
        """The network to validate and to keep."""
        if self.average is None:
            return self.accelerator.unwrap_model(self.model)
        self.job.after_step(self.average.module)
        return self.average.module

    def _params(self) -> Params:
        return {
            name: tensor.detach().cpu() for name, tensor in self._subject().state_dict().items()
        }

    def _save_checkpoint(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "extra_modules": self.accelerator.unwrap_model(self.extra).state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "best": self.best,
            "signature": self.job.signature,
        }
        save(self.checkpoint, Artifact({}, extra={"training": state}))

    def _restore(self) -> None:
        if not self.checkpoint.exists():
            raise KdpError(f"there is nothing to resume: {self.checkpoint} does not exist")
        state = load(self.checkpoint).extra["training"]
        self._check_signature(state["signature"])
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.accelerator.unwrap_model(self.extra).load_state_dict(state["extra_modules"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step, self.best = state["step"], state["best"]

    def _check_signature(self, before: dict[str, Any]) -> None:
        now = self.job.signature
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            raise KdpError(
                f"{self.checkpoint} was made with other settings ({', '.join(changed)}); "
                "restore them, or start anew without --resume"
            )
