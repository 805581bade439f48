"""The one training loop: teachers, students and fine-tuning differ in their objective only."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from kdp.errors import Interrupted, KdpError
from kdp.log import log
from kdp.progress import progress
from kdp.training.accelerator import make_accelerator
from kdp.training.average import averaged
from kdp.training.checkpoint import Checkpoint, check_finite
from kdp.training.curves import Curves
from kdp.training.job import Batch, Metrics, Params, TrainingJob, TrainingResult
from kdp.training.report import StepReport, validation_line
from kdp.training.schedule import learning_rate
from kdp.training.shutdown import graceful_shutdown
from kdp.training.trackers import Trackers


def fit(job: TrainingJob, resume: bool = False) -> TrainingResult:
    """Train to the end, from the start or from the checkpoint in the job's folder.

    Raises:
        KdpError: the loss or a weight is not finite, there is no checkpoint that fits, or the
            device or the disk does not allow it.
        Interrupted: on SIGINT or SIGTERM, after writing a checkpoint.
    """
    return _Run(job, resume).run()


class _Run:
    """State of one training: network, average, optimizer, step, best so far."""

    def __init__(self, job: TrainingJob, resume: bool) -> None:
        self.job, self.settings = job, job.settings
        self.step, self.validated = 0, -1
        self.metrics: Metrics = {}
        self.best: dict[str, Any] = {"value": -math.inf, "step": 0, "params": {}, "metrics": {}}
        self.accelerator = make_accelerator(self.settings, job.device)
        self.average = averaged(job.model, self.settings.ema_decay)
        self.model, self.optimizer = self.accelerator.prepare(job.model, _optimizer(job))
        self.extra = job.extra_modules.to(self.accelerator.device)
        self.average.to(self.accelerator.device)
        self.checkpoint = Checkpoint(job.folder / "checkpoint.pth", job.signature)
        if resume:
            self._restore()
            log.info(f"Resuming after step {self.step} of {self.settings.steps}")
        self.step_report = StepReport(self.step, self.settings.steps)
        if self.accelerator.is_main_process:
            self.curves = Curves(job.folder, self.step)
            self.trackers = Trackers(self.settings.trackers, job.folder, job.signature)

    def run(self) -> TrainingResult:
        with graceful_shutdown() as shutdown:
            for batch in self._batches():
                if self._should_stop_early():
                    metric, best = self.job.primary_metric, self.best["step"]
                    log.info(f"Early stopping: {metric} has not improved since step {best}")
                    break
                self._train_step(batch)
                if self._any_rank(shutdown.stop_requested) and self.step < self.settings.steps:
                    self._save_checkpoint()
                    raise Interrupted(f"stopped after step {self.step}; go on with --resume")
        if self.validated != self.step:
            self._validate()
        if self.accelerator.is_main_process:
            self.curves.draw(last=True)
            self.trackers.finish()
        self.accelerator.end_training()
        return TrainingResult(
            last=self._params(),
            best=self.best["params"],
            last_metrics=self.metrics,
            best_metrics=self.best["metrics"],
            best_step=self.best["step"],
            device=str(self.accelerator.device),
        )

    def _batches(self) -> Iterator[Batch]:
        """The batches from the current step on, with a progress bar."""
        size, total = self.settings.batch_size, self.settings.steps
        rest = Subset(self.job.data(size * total), range(size * self.step, size * total))
        loader = self.accelerator.prepare(
            DataLoader(
                rest,
                batch_size=size // self.accelerator.num_processes,
                num_workers=self.job.workers,
                persistent_workers=self.job.workers > 0,
            )
        )
        with progress("training", total, self.step, lines=False) as advance:
            for batch in loader:
                yield batch
                advance(note=f"loss {self.loss:.4g}")

    def _should_stop_early(self) -> bool:
        """Whether the best is too old; only the main process knows it."""
        patience = self.settings.patience
        if patience is None or self.step % self.settings.validate_every:
            return False
        return self._any_rank(
            bool(self.best["params"]) and self.step - self.best["step"] >= patience
        )

    def _any_rank(self, stop_requested: bool) -> bool:
        """Whether any of the processes wants to stop: they must stop at the same step."""
        if self.accelerator.num_processes == 1:
            return stop_requested
        flag = torch.tensor(float(stop_requested), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _train_step(self, batch: Batch) -> None:
        started = time.perf_counter()
        # A step's randomness depends on its number alone: a resumed run draws the same.
        _seed((self.job.seed * 1_000_003 + self.step) * 1024 + self.accelerator.process_index)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        loss, parts = self.job.objective(self.model, batch, self.step)
        self.loss = float(loss.detach())
        if not math.isfinite(self.loss):
            raise KdpError(
                f"the loss is {self.loss} at step {self.step}: lower the learning rate or clip "
                f"gradients (clip_norm); a checkpoint, if any, is in {self.job.folder}"
            )
        self._optimizer_step(loss)
        self.step += 1
        self._report(parts, time.perf_counter() - started)

    def _optimizer_step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        for parameter in self.extra.parameters():  # no wrapper averages these over processes
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        if self.settings.clip_norm:
            learned = [*self.model.parameters(), *self.extra.parameters()]
            self.accelerator.clip_grad_norm_(learned, self.settings.clip_norm)
        self.optimizer.step()
        plain = self.accelerator.unwrap_model(self.model)
        self.job.after_step(plain, self.step + 1)
        self.average.update_parameters(plain)

    def _report(self, parts: dict[str, Tensor], seconds: float) -> None:
        """Log, validate and write a checkpoint where the settings say so."""
        settings, last = self.settings, self.step == self.settings.steps
        if self.step % settings.log_every == 0 or last:
            numbers = {name: float(part.detach()) for name, part in parts.items()}
            self._log({"loss": self.loss, **numbers, "seconds": seconds})
            self.step_report(self.step, self.loss, learning_rate(settings, self.step - 1))
        if self.step % settings.validate_every == 0 or last:
            self._validate()
        if self.step % settings.checkpoint_every == 0 and not last:
            self._save_checkpoint()

    def _log(self, numbers: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            lr = learning_rate(self.settings, self.step - 1)
            self.curves.add({"step": self.step, "lr": lr, **numbers})
            self.trackers.log(numbers, self.step)

    def _validate(self) -> None:
        """Quality of the averaged weights, in full precision; keeps the best."""
        self.validated = self.step
        if self.accelerator.is_main_process:
            check_finite(self._params(), f"checkpoints are in {self.job.folder}")
            self.metrics = self.job.validate(self.average.module)
            flat = {f"{s}/{k}": v for s, values in self.metrics.items() for k, v in values.items()}
            self._log(flat)
            self.curves.draw(last=False)
            headline = self.job.headline_metrics or (self.job.primary_metric,)
            log.info(validation_line(self.step, self.metrics, headline))
            self._keep_best(next(iter(self.metrics.values()))[self.job.primary_metric])
        self.accelerator.wait_for_everyone()

    def _keep_best(self, value: float) -> None:
        if math.isnan(value):
            raise KdpError(f"{self.job.primary_metric} is not a number at step {self.step}")
        if self.step >= self.job.best_from_step and value > self.best["value"]:
            params = {name: tensor.clone() for name, tensor in self._params().items()}
            self.best = {"value": value, "step": self.step, "params": params}
            self.best["metrics"] = self.metrics

    def _params(self) -> Params:
        """The weights to keep: the averaged ones."""
        state = self.average.module.state_dict()
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

    def _save_checkpoint(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state = {name: part.state_dict() for name, part in self._parts().items()}
        self.checkpoint.write({**state, "step": self.step, "best": self.best})

    def _restore(self) -> None:
        state = self.checkpoint.read()
        if state["step"] > self.settings.steps:
            raise KdpError(
                f"{self.checkpoint.path} is of step {state['step']}, and the run ends at "
                f"{self.settings.steps}: start anew, without --resume"
            )
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.best = state["step"], state["best"]

    def _parts(self) -> dict[str, Any]:
        """What a checkpoint holds the state of."""
        parts = {
            "model": self.accelerator.unwrap_model(self.model),
            "extra_modules": self.extra,
            "optimizer": self.optimizer,
            "average": self.average,
        }
        scaler = self.accelerator.scaler
        return parts if scaler is None else {**parts, "scaler": scaler}


def _seed(number: int) -> None:
    """Seed every generator that an objective may draw from, on every device."""
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number % 2**63)


def _optimizer(job: TrainingJob) -> torch.optim.Optimizer:
    """Biases, norms, gates and what learns beside the network are not decayed."""
    settings = job.settings
    own = [p for p in job.model.parameters() if p.requires_grad]
    extra = [p for p in job.extra_modules.parameters() if p.requires_grad]
    decayed = {"params": [p for p in own if p.ndim > 1], "weight_decay": settings.weight_decay}
    rest = {"params": [*(p for p in own if p.ndim < 2), *extra], "weight_decay": 0.0}
    groups = [group for group in (decayed, rest) if group["params"]]
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, settings.lr, momentum, nesterov=momentum > 0)
    kind = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=settings.betas)
