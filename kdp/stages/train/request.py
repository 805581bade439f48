"""What `kdp train`, `kdp finetune` and `kdp cache-targets` need of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdp.config import (
    Config,
    DistillConfig,
    DynamicConfig,
    DynamicSettings,
    ModelConfig,
    PruneConfig,
    TeacherConfig,
    TrainConfig,
    TrainSettings,
)
from kdp.config.epochs import epoch_steps
from kdp.config.measure import LimitsConfig
from kdp.errors import KdpError
from kdp.stages.experiments.store import ExperimentRequest, RunLabel
from kdp.stages.paths import ChainPaths, chain_paths, check_input, fine_tunes, targets_folder
from kdp.stages.prune.request import MasksRequest

Stage = Literal["train", "finetune"]
Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class DistillRequest:
    """What distillation needs of a configuration, checked once.

    Attributes:
        distill: its section.
        teacher: the teachers: the section's own, or the `teacher` of the whole configuration.
        student: the section `model`, which completes a teacher given as a plan; or None.
        data: the section `data` in plain values, without what changes the speed alone.
        seed: of the alignments and the samples.
    """

    distill: DistillConfig
    teacher: TeacherConfig
    student: ModelConfig | None
    data: dict[str, Any]
    seed: int

    @classmethod
    def from_config(cls, config: Config) -> DistillRequest:
        """The request of a configuration.

        Raises:
            KdpError: there is no section `distill`, no teacher, or not its file.
        """
        if config.distill is None:
            raise KdpError("distillation needs the section `distill`")
        teacher = config.distill.teacher
        if teacher is None and config.teacher is None:
            raise KdpError("the section `distill` needs `teacher`, the file to distil from")
        key = "distill.teacher.weights" if teacher else "teacher"
        teacher = teacher or TeacherConfig(weights=config.teacher)
        for path in teacher.files:
            check_input(config, key, path)
        data = {key: value for key, value in config.plain()["data"].items() if key != "workers"}
        return cls(
            distill=config.distill,
            teacher=teacher,
            student=config.model,
            data=data,
            seed=config.seed,
        )


@dataclass(frozen=True)
class TrainingRequest:
    """What `kdp train` and `kdp finetune` share: their part of a configuration, checked once.

    Attributes:
        config: the whole configuration, for the task and the record.
        stage: the subcommand, which is the name of its section too.
        section: that section.
        distill: the teachers and the losses; None to learn from the ground truth alone.
        experiment: where the result is recorded; None to record nothing.
        paths: the files of the chain.
        folder: for the checkpoint and the curves.
        seed: of everything random.
        device: "auto", "cpu", "cuda", ...
        workers: number of processes that load data.
        label: of the run and of its experiment.
        samples: to train on, by which epochs are counted; None before the data are read.
    """

    config: Config
    stage: Stage
    section: TrainConfig
    distill: DistillRequest | None
    experiment: ExperimentRequest | None
    paths: ChainPaths
    folder: Path
    seed: int
    device: str
    workers: int
    label: RunLabel
    samples: int | None = None

    @property
    def settings(self) -> TrainSettings:
        """The section with every length in steps."""
        return self.section.in_steps(self.samples)

    def counted(self, samples: int, task_reduction: Reduction = "mean") -> TrainingRequest:
        """The request once the task is known.

        Args:
            samples: number of training samples.
            task_reduction: of the task, where the section `distill` gives none.
        """
        request = replace(self, samples=samples)
        if self.distill is None:
            return request
        distill, epoch = self.distill.distill, epoch_steps(samples, self.section.batch_size)
        distill = distill.in_shares(request.settings.steps, epoch)
        update = {"task_reduction": distill.task_reduction or task_reduction}
        distill = distill.model_copy(update=update)
        return replace(request, distill=replace(self.distill, distill=distill))

    @property
    def duration(self) -> dict[str, float]:
        """Length of the training in steps and in epochs, for the record."""
        assert self.samples is not None
        steps = self.settings.steps
        epoch = epoch_steps(self.samples, self.section.batch_size)
        epochs = self.section.epochs or round(steps / epoch, 3)
        return {"steps": steps, "epochs": epochs, "samples": self.samples, "steps_per_epoch": epoch}

    @classmethod
    def from_config(cls, config: Config, stage: Stage) -> TrainingRequest:
        """The request of a configuration.

        Raises:
            KdpError: the stage's section, an evaluation set or the teacher is missing.
        """
        section = config.train if stage == "train" else config.finetune
        if section is None:
            raise KdpError(f"kdp {stage} needs the section `{stage}`")
        if all(section.at_end for section in config.evaluation.values()):
            without = " without `at_end`" if config.evaluation else ""
            raise KdpError(
                f"training needs an `evaluation` set{without}, to pick the best weights by"
            )
        paths = chain_paths(config)
        checkpoint = paths.training if stage == "train" else paths.checkpoint
        return cls(
            config=config,
            stage=stage,
            section=section,
            distill=DistillRequest.from_config(config) if config.distill else None,
            experiment=ExperimentRequest.from_config(config),
            paths=paths,
            folder=checkpoint.parent,
            seed=config.seed,
            device=config.device,
            workers=config.data.workers,
            label=RunLabel.now(config.output.name, stage),
        )


@dataclass(frozen=True)
class DynamicRequest:
    """What pruning while training needs of a configuration, checked once.

    Attributes:
        section: `dynamic`.
        train: the section `train`.
        prune: the section `prune`: what may be removed.
        mac_constraint: fraction of the MACs that stays.
        samples: to train on, by which epochs are counted; None before the data are read.
    """

    section: DynamicConfig
    train: TrainConfig
    prune: PruneConfig
    mac_constraint: float
    samples: int | None = None

    @property
    def settings(self) -> DynamicSettings:
        """The section with every length in steps."""
        if self.samples is None:
            return self.section.in_steps()
        return self.section.in_steps(epoch_steps(self.samples, self.train.batch_size))

    def counted(self, samples: int | None) -> DynamicRequest:
        """The request once the training samples are counted.

        Raises:
            KdpError: the training ends before pruning does.
        """
        request = replace(self, samples=samples)
        end, steps = request.settings.end_step, self.train.in_steps(samples).steps
        if end > steps:
            raise KdpError(
                f"dynamic.end_step ({end}) is after the last of the {steps} steps of train"
            )
        return request

    @classmethod
    def from_config(cls, config: Config) -> DynamicRequest:
        """The request of a configuration.

        Raises:
            KdpError: a section or `mac_constraint` is missing, or the training ends before
                `end_step`.
        """
        if config.dynamic is None or config.train is None or config.mac_constraint is None:
            raise KdpError("pruning while training needs `dynamic`, `train` and `mac_constraint`")
        request = cls(config.dynamic, config.train, config.prune, config.mac_constraint)
        in_steps = not (config.dynamic.uses_epochs or config.train.uses_epochs)
        return request.counted(None) if in_steps else request


@dataclass(frozen=True)
class TrainRequest:
    """What `kdp train` needs of a configuration, checked once.

    Attributes:
        training: what it shares with `kdp finetune`.
        model: the network, and the weights it starts from.
        limits: what the deployed network may cost at most; None without limits.
        dynamic: how it is pruned while it trains; None to keep all units.
    """

    training: TrainingRequest
    model: ModelConfig
    limits: LimitsConfig | None
    dynamic: DynamicRequest | None

    @classmethod
    def from_config(cls, config: Config) -> TrainRequest:
        """The request of a configuration.

        Raises:
            KdpError: a section or a file is missing, or sections do not fit one another.
        """
        if config.model is None or config.train is None:
            raise KdpError("kdp train needs the sections `model` and `train`")
        if config.model.weights is not None:
            check_input(config, "model.weights", config.model.weights)
        return cls(
            training=TrainingRequest.from_config(config, "train"),
            model=config.model,
            limits=config.limits,
            dynamic=DynamicRequest.from_config(config) if config.dynamic else None,
        )

    def counted(self, samples: int, task_reduction: Reduction) -> TrainRequest:
        """The request once the task is known, see `TrainingRequest.counted`.

        Raises:
            KdpError: the training ends before pruning does.
        """
        dynamic = self.dynamic.counted(samples) if self.dynamic else None
        training = self.training.counted(samples, task_reduction)
        return replace(self, training=training, dynamic=dynamic)

    @property
    def files(self) -> dict[str, Path]:
        """What the stage writes: the best and the last weights, and the masks if it prunes."""
        paths = self.training.paths
        files = {"best": paths.trained, "last": paths.last}
        return {**files, "masks": paths.masks} if self.dynamic else files


@dataclass(frozen=True)
class FinetuneRequest:
    """What `kdp finetune` needs of a configuration, checked once.

    Attributes:
        training: what it shares with `kdp train`.
        masks: what decides the masks that the pruned network must have.
    """

    training: TrainingRequest
    masks: MasksRequest

    @classmethod
    def from_config(cls, config: Config) -> FinetuneRequest:
        """The request of a configuration.

        Raises:
            KdpError: the section `finetune`, an evaluation set or the teacher is missing.
        """
        training = TrainingRequest.from_config(config, "finetune")
        return cls(training, MasksRequest.from_config(config))


@dataclass(frozen=True)
class CacheTargetsRequest:
    """What `kdp cache-targets` needs of a configuration, checked once.

    Attributes:
        config: the whole configuration, for the task and the record.
        distill: the teachers, and the losses that compare features.
        model: the student, which defines the taps; None for the pruned network.
        pruned: the file of the pruned network.
        folder: where to write.
        sections: `train` and `finetune`, those that there are.
        device: "auto", "cpu", "cuda", ...
    """

    config: Config
    distill: DistillRequest
    model: ModelConfig | None
    pruned: Path
    folder: Path
    sections: list[TrainConfig]
    device: str

    def amount(self, samples: int | None) -> tuple[int, int]:
        """Samples that the longer of the sections draws in all, and its batch size.

        Args:
            samples: number of training samples; None where no length is given in epochs.
        """
        settings = [section.in_steps(samples) for section in self.sections]
        return max((s.steps * s.batch_size, s.batch_size) for s in settings)

    @property
    def uses_epochs(self) -> bool:
        """Whether the samples have to be counted first."""
        return any(section.uses_epochs for section in self.sections)

    @classmethod
    def from_config(cls, config: Config) -> CacheTargetsRequest:
        """The request of a configuration.

        Raises:
            KdpError: a section or the teacher is missing.
        """
        distill = DistillRequest.from_config(config)
        finetune = config.finetune if fine_tunes(config) else None
        sections = [section for section in (config.train, finetune) if section]
        if not sections:
            raise KdpError("kdp cache-targets needs the section `train` or `finetune`")
        return cls(
            config=config,
            distill=distill,
            model=config.model if config.train else None,
            pruned=chain_paths(config).pruned,
            folder=targets_folder(config),
            sections=sections,
            device=config.device,
        )
