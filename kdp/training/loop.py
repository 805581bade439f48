"""The training loop. Teachers, students and fine-tuning differ only in their objective.

A run that is stopped and resumed ends with the same weights as one that is not: data, learning
rate and random draws depend on the number of the step alone, everything else is in the checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from kdp.errors import Interrupted, KdpError
from kdp.log import log
from kdp.progress import progress
from kdp.training.accelerator import end_together, make_accelerator
from kdp.training.average import ema_of
from kdp.training.checkpoint import Checkpoint, check_finite
from kdp.training.curves import Curves
from kdp.training.job import Batch, Metrics, Params, TrainingJob, TrainingResult, check_batch
from kdp.training.loading import batch_loader, worker_ends_named
from kdp.training.optimizer import make_optimizer
from kdp.training.report import StepReport, final_line, validation_line
from kdp.training.restore import check_best, restore_parts
from kdp.training.running import means
from kdp.training.schedule import learning_rate
from kdp.training.seeding import seed_everything
from kdp.training.shutdown import (
    Shutdown,
    StopRequested,
    graceful_shutdown,
    stop_between_layers,
)
from kdp.training.step_errors import batch_norm_explained, nonfinite_loss, unusable_batch
from kdp.training.trackers import Trackers


def fit(job: TrainingJob, resume: bool = False) -> TrainingResult:
    """Train a network to the last step.

    Args:
        job: network, data, objective and settings.
        resume: continue from the checkpoint in the job's folder.

    Raises:
        KdpError: the loss or a weight is not finite, no checkpoint fits, the device does not
            support the settings, or a file cannot be written.
        Interrupted: on SIGINT, SIGTERM or SIGHUP, after writing a checkpoint.
    """
    with worker_ends_named():
        return _TrainingRun(job, resume).run()


class _TrainingRun:
    """State of a training: network, average, optimizer, finished steps, best validation so far."""

    def __init__(self, job: TrainingJob, resume: bool) -> None:
        self.job, self.settings = job, job.settings
        self.step, self.validated, self.validation_due = 0, -1, False
        self.shutdown = Shutdown()
        self.metrics: Metrics = {}
        self.best: dict[str, Any] = {"value": -math.inf, "step": 0, "params": {}, "metrics": {}}
        self.accelerator = make_accelerator(self.settings, job.device)
        # Copied before `prepare` wraps the network: the average is a plain one, ready to save.
        self.average = ema_of(job.model, self.settings.ema_decay)
        optimizer = make_optimizer(job.model, job.extra_modules, self.settings)
        self.model, self.optimizer = self.accelerator.prepare(job.model, optimizer)
        self.extra_modules = job.extra_modules.to(self.accelerator.device)
        self.average.to(self.accelerator.device)
        path = job.folder / "checkpoint.pth"
        self.checkpoint = Checkpoint(path, job.signature, job.targets)
        if resume:
            self._restore()
            log.info(f"Resuming after step {self.step} of {self.settings.steps}")
        self.first_step = self.step
        self.step_report = StepReport(self.step, self.settings.steps)
        if self.accelerator.is_main_process:
            self.curves = Curves(job.folder, self.step, self._headline)
            names, step = self.settings.trackers, self.step
            self.trackers = Trackers(names, job.folder, job.tracked, step)

    def run(self) -> TrainingResult:
        with graceful_shutdown() as self.shutdown:
            if self.validation_due:
                self._validate()
                self._stop_if_requested()
            for batch in self._batches():
                if self._should_stop_early():
                    metric, best = self.job.primary_metric, self.best["step"]
                    log.info(f"Early stopping: {metric} has not improved since step {best}")
                    break
                self._train_step(batch)
                self._stop_if_requested()
        if self.validated != self.step:
            self._validate()
        with graceful_shutdown() as self.shutdown:
            self._evaluate_best()
        if self.accelerator.is_main_process:
            self.curves.draw(last=True)
            self.trackers.finish()
        end_together(self.accelerator)
        return self._result()

    def _stop_if_requested(self) -> None:
        if not self._any_rank(self.shutdown.stop_requested):
            return
        # After the last step and its validation there is nothing left to resume: the run ends.
        if self.step < self.settings.steps or self._any_rank(self.validation_due):
            self._save_checkpoint()
            if self.accelerator.is_main_process:
                self.trackers.finish()
            raise Interrupted(f"stopped after step {self.step}; continue with --resume")

    def _end_on_error(self, reason: str | None) -> None:
        """End the run, in all processes, if the data of any of them cannot be used.

        Called between steps, where the state is that of the last finished one: it goes into a
        checkpoint first, so that nothing is lost once the data are mended.

        Args:
            reason: why this process cannot go on; None if it can.
        """
        if not self._any_rank(reason is not None):
            return
        reason = reason or "another process cannot use its data"
        if self.step > self.first_step:
            try:
                self._save_checkpoint()
            except KdpError as error:
                raise KdpError(f"{reason}; no checkpoint was written: {error}") from error
            reason += f"; mend it and continue after step {self.step} with --resume"
        raise KdpError(reason)

    def _result(self) -> TrainingResult:
        return TrainingResult(
            last=self._params(),
            best=self.best["params"],
            last_metrics=self.metrics,
            best_metrics=self.best["metrics"],
            best_step=self.best["step"],
            device=str(self.accelerator.device),
        )

    def _batches(self) -> Iterator[Batch]:
        """The batches of the remaining steps, with a progress bar."""
        size, total = self.settings.batch_size, self.settings.steps
        # Samples are numbered across the whole run. A resumed run starts at the number where the
        # stopped one ended, and accelerate deals every batch out over the processes.
        remaining = Subset(self.job.data(size * total), range(size * self.step, size * total))
        if len(remaining):
            check_batch(remaining[0], size // self.accelerator.num_processes)
        loader = self.accelerator.prepare(
            batch_loader(remaining, size // self.accelerator.num_processes, self.job.workers)
        )
        with progress("training", total, self.step, lines=False) as advance:
            for batch in loader:
                self._end_on_error(unusable_batch(batch, self.step))
                yield batch
                advance(note=f"loss {self.loss:.4g}")

    def _should_stop_early(self) -> bool:
        """True if the best validation is at least `patience` steps old.

        Checked before a step instead of after a validation, so that a resumed run decides the same.
        """
        patience = self.settings.patience
        if patience is None or self.step % self.settings.validate_every:
            return False
        # Only the main process validates, and therefore knows the best.
        return self._any_rank(
            bool(self.best["params"]) and self.step - self.best["step"] >= patience
        )

    def _any_rank(self, condition: bool) -> bool:
        """True if the condition holds in any process.

        All processes must stop at the same step: one that continued alone would wait for ever in
        the next gradient reduction.
        """
        if self.accelerator.num_processes == 1:
            return condition
        flag = torch.tensor(float(condition), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _train_step(self, batch: Batch) -> None:
        started = time.perf_counter()
        # Dropout and augmentation depend on the step's number alone: a resumed run draws the same.
        # Processes draw differently; 1024 numbers per step leave room for as many of them.
        step_seed = self.job.seed * 1_000_003 + self.step
        seed_everything(step_seed * 1024 + self.accelerator.process_index)
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        with batch_norm_explained(self.settings.batch_size):
            loss, parts = self.job.objective(self.model, batch, self.step)
        self.loss = float(loss.detach())
        if not math.isfinite(self.loss):
            cause = nonfinite_loss(self.loss, self.step, parts)
            raise KdpError(f"{cause}; the last checkpoint, if any, is in {self.job.folder}")
        self._optimizer_step(loss)
        self.step += 1
        self._report(parts, time.perf_counter() - started)

    def _optimizer_step(self, loss: Tensor) -> None:
        """Update the weights, then what `after_step` changes, then the average."""
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        # The distributed wrapper averages the network's gradients over the processes, not those of
        # modules beside it.
        for parameter in self.extra_modules.parameters():
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        if self.settings.clip_norm:
            trained = [*self.model.parameters(), *self.extra_modules.parameters()]
            self.accelerator.clip_grad_norm_(trained, self.settings.clip_norm)
        self.optimizer.step()
        network = self.accelerator.unwrap_model(self.model)
        # Here fine-tuning zeroes removed units again, which momentum has moved, and pruning while
        # training updates its masks. The average comes after it, or it would hold the old ones.
        self.job.after_step(network, self.step + 1)
        self.average.update_parameters(network)

    def _report(self, parts: dict[str, Tensor], seconds: float) -> None:
        """Log, validate and write a checkpoint where they are due.

        Validation comes first, so that a checkpoint of the same step knows its result.
        """
        settings, last = self.settings, self.step == self.settings.steps
        if self.step % settings.log_every == 0 or last:
            numbers = {name: float(part.detach()) for name, part in parts.items()}
            numbers |= means(self._running_sums())
            self.job.running_metrics.reset()
            self._log({"loss": self.loss, **numbers, "seconds": seconds})
            self.step_report(self.step, self.loss, learning_rate(settings, self.step - 1))
        if self.step % settings.validate_every == 0 or last:
            self._validate()
        if self.step % settings.checkpoint_every == 0 and not last:
            self._save_checkpoint()

    def _running_sums(self) -> dict[str, Tensor]:
        """Sums of the metrics of training batches, over all processes."""
        sums = self.job.running_metrics.sums()
        return {name: self.accelerator.reduce(pair, "sum") for name, pair in sums.items()}

    def _log(self, numbers: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            lr = learning_rate(self.settings, self.step - 1)
            self.curves.add({"step": self.step, "lr": lr, **numbers})
            self.trackers.log(numbers, self.step)

    def _validate(self) -> None:
        """Evaluate the averaged weights in full precision, and keep the best.

        A validation that would delay a requested stop is abandoned; the resumed run repeats it.
        """
        self.validated, self.validation_due = self.step, False
        reason = None
        if self.accelerator.is_main_process:
            check_finite(self._params(), f"checkpoints are in {self.job.folder}")
            try:
                with stop_between_layers(self.average.module, lambda: self.shutdown.overdue):
                    self.metrics = self.job.validate(self.average.module)
            except StopRequested:
                self.validation_due = True
            except KdpError as error:
                self.validation_due, reason = True, str(error)
            else:
                self._report_validation()
        self._end_on_error(reason)  # the other processes wait in it

    def _report_validation(self) -> None:
        self._log(_flat(self.metrics))
        self.curves.draw(last=False)
        log.info(validation_line(self.step, self.metrics, self._headline))
        self._keep_best(next(iter(self.metrics.values()))[self.job.primary_metric])

    def _keep_best(self, value: float) -> None:
        if math.isnan(value):
            raise KdpError(f"{self.job.primary_metric} is not a number at step {self.step}")
        if self.step >= self.job.best_from_step and value > self.best["value"]:
            params = {name: tensor.clone() for name, tensor in self._params().items()}
            self.best = {"value": value, "step": self.step, "params": params}
            self.best["metrics"] = self.metrics

    def _evaluate_best(self) -> None:
        """Measure the best weights on the sets that validations leave out.

        A stop abandons it; the resumed run validates its last step again and comes back here.
        """
        evaluate, last, network = self.job.evaluate_at_end, self._params(), self.average.module
        stopped = False
        if evaluate and self.accelerator.is_main_process and self.best["params"]:
            network.load_state_dict(self.best["params"])
            try:
                with stop_between_layers(network, lambda: self.shutdown.overdue):
                    metrics = evaluate(network)
                log.info(final_line(self.best["step"], metrics, self._headline))
                self.trackers.log(_flat(metrics), self.step)
                self.best["metrics"] = {**self.best["metrics"], **metrics}
            except StopRequested:
                stopped = True
            network.load_state_dict(last)
        if self._any_rank(stopped):
            self._save_checkpoint()
            raise Interrupted(
                "stopped before the best network was measured; continue with --resume"
            )

    @property
    def _headline(self) -> tuple[str, ...]:
        return self.job.headline_metrics or (self.job.primary_metric,)

    def _params(self) -> Params:
        """The averaged weights, on the CPU."""
        state = self.average.module.state_dict()
        return {name: tensor.detach().cpu() for name, tensor in state.items()}

    def _save_checkpoint(self) -> None:
        running = self._running_sums()
        if not self.accelerator.is_main_process:
            return
        state = {name: part.state_dict() for name, part in self._parts().items()}
        state |= {"step": self.step, "best": self.best, "running_metrics": running}
        state["validation_due"] = self.validation_due
        self.curves.sync()
        self.checkpoint.write(state)

    def _restore(self) -> None:
        state = self.checkpoint.read()
        if state["step"] > self.settings.steps:
            raise KdpError(
                f"{self.checkpoint.path} is of step {state['step']}, but the run ends at "
                f"{self.settings.steps}: raise train.steps, or start over with --overwrite"
            )
        restore_parts(self.checkpoint.path, self._parts(), state)
        check_best(self.checkpoint.path, state["best"]["params"], self._params())
        self.step, self.best = state["step"], state["best"]
        self.validation_due = state.get("validation_due", False)
        # Checkpoints of earlier versions have none.
        self._restore_running_sums(state.get("running_metrics", {}))

    def _restore_running_sums(self, sums: dict[str, Tensor]) -> None:
        """Load the sums of all processes into the main one, and zeros into the others.

        Every process must hold the same metrics: `_running_sums` reduces one after the other, and
        may be called again before the next training batch.
        """
        share = 1 if self.accelerator.is_main_process else 0
        device = self.accelerator.device
        self.job.running_metrics.load({n: share * pair.to(device) for n, pair in sums.items()})

    def _parts(self) -> dict[str, Any]:
        """The objects whose state a checkpoint holds. The keys are part of its format."""
        parts = {
            "model": self.accelerator.unwrap_model(self.model),
            "extra_modules": self.extra_modules,
            "optimizer": self.optimizer,
            "average": self.average,
        }
        scaler = self.accelerator.scaler  # of fp16; its scale decides which steps are skipped
        return parts if scaler is None else {**parts, "scaler": scaler}


def _flat(metrics: Metrics) -> dict[str, float]:
    """Metrics by "<set>/<metric>"."""
    return {f"{s}/{k}": v for s, values in metrics.items() for k, v in values.items()}
