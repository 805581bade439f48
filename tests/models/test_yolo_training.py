"""Distillation of YOLO11, resumed training and data-parallel training."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import default_collate

from kdp.artifacts import load
from kdp.config import Config
from kdp.distillation.losses import attention_map
from kdp.distillation.teacher import TeacherEnsemble
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.taps import Taps
from kdp.models.ultralytics import import_ultralytics as ultralytics
from kdp.models.yolo11 import TAPS
from kdp.stages.train import job as job_stage
from kdp.stages.train import objective as distil
from kdp.stages.train.request import DistillRequest
from kdp.stages.train.train import train
from kdp.tasks import task_for
from tests.conftest import same_params
from tests.models.yolo_helpers import (
    ARCH,
    ATTENTION,
    HEAD_READS,
    SIZE,
    STEPS,
    config,
    config_file,
    in_ultralytics,
    lively,
    ultralytics_batch,
)
from tests.runs import as_rank, ended, free_port, start_kdp, wait_until


@pytest.mark.parametrize("align", [False, True])
def test_attention_transfer_trains_the_student_and_not_the_teacher(
    yolo_folder: Path, align: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensembles: list[TeacherEnsemble] = []

    def ensemble(*arguments: Any) -> TeacherEnsemble:
        ensembles.append(TeacherEnsemble(*arguments))
        return ensembles[0]

    monkeypatch.setattr(distil, "TeacherEnsemble", ensemble)
    losses = {"attention_transfer": {"weight": 1.0, "align": align}}
    settings = config(yolo_folder, distill={"losses": losses, "task_weight": 0})
    student, task = build("yolo11", **ARCH.args), task_for(ARCH, settings)
    request = DistillRequest.from_config(settings)
    objective = distil.build_objective(task, student, request, 4)
    teacher = ensembles[0].teachers[0].model
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    batch = default_collate([objective.data(2)[i] for i in range(2)])
    loss, _ = objective.objective(student.train(), batch, 0)
    loss.backward()
    for tap in TAPS[:1] + TAPS[-1:]:
        gradients = [p.grad for p in student.get_submodule(tap).parameters() if p.grad is not None]
        assert sum(float(g.abs().sum()) for g in gradients) > 0, tap
    assert same_params(before, dict(teacher.state_dict()))
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())


def test_score_weighted_loss_matches_ultralytics(yolo_folder: Path) -> None:
    teacher, student, module = lively(), lively("s"), ultralytics("nn.distill_model")
    pair = [in_ultralytics(teacher), in_ultralytics(student, "s")]
    for plain in pair:
        plain.args.imgsz = SIZE
    rival = module.DistillationModel(*pair).train()
    settings = config(yolo_folder, distill={"losses": {"score_weighted": {}}, "taps": HEAD_READS})
    arch = ARCH.with_args(scale="s")
    request = DistillRequest.from_config(settings)
    objective = distil.build_objective(task_for(arch, settings), student, request, 4)
    (_, own) = objective.extra_modules
    weights = zip(own.state_dict(), rival.projector.state_dict().values(), strict=True)
    own.load_state_dict({name: t.squeeze(-1) if t.ndim == 4 else t for name, t in weights})
    batch = default_collate([objective.data(2)[i] for i in range(2)])
    _, parts = objective.objective(student.train(), batch, 0)
    expected = rival.loss(ultralytics_batch(batch))[1]["dis_loss"]
    torch.testing.assert_close(6.0 * parts["score_weighted"].detach(), expected[0])


def test_attention_transfer_brings_unaligned_attention_closer(yolo_folder: Path) -> None:
    """The loss alone could fall by the alignment; this is measured without it."""
    losses = {"attention_transfer": {"weight": 10.0, "align": True}}
    steps = {**STEPS, "steps": 20, "validate_every": 20, "checkpoint_every": 20, "lr": 3e-3}
    settings = config(yolo_folder, distill={"losses": losses, "task_weight": 0}, train=steps)
    task = task_for(ARCH, settings)
    x = default_collate([task.training_data(4)[i] for i in range(4)])["image"]
    teacher = load_network(yolo_folder / "teacher.pth")[0]
    torch.manual_seed(settings.seed)
    fresh = build("yolo11", **ARCH.args)
    trained = load_network(train(settings)["last"])[0]
    assert distance(trained.train(), teacher, x) < 0.9 * distance(fresh.train(), teacher, x)


def distance(student: nn.Module, teacher: nn.Module, x: Tensor) -> float:
    """Distance between the attention maps of two networks, without alignment."""
    maps = []
    for model in (student, teacher):
        with torch.no_grad(), Taps(model, TAPS) as features:
            model(x)
        maps.append([attention_map(features[tap], 2.0) for tap in TAPS])
    return sum(float((a - b).norm()) for a, b in zip(*maps, strict=True))


def test_a_killed_training_resumes_to_the_same_weights(yolo_folder: Path) -> None:
    losses = {"attention_transfer": {"schedule": "piecewise", "align": True}}
    steps = {**STEPS, "steps": 5, "validate_every": 5, "checkpoint_every": 1}
    changes = {"distill": {"losses": losses}, "train": steps}
    path = config_file(yolo_folder, **changes)
    process = start_kdp("train", "-c", str(path))
    wait_until(lambda: (yolo_folder / "runs/tiny_train/checkpoint.pth").exists(), process)
    process.kill()
    process.wait()
    step = load(yolo_folder / "runs/tiny_train/checkpoint.pth").extra["training"]["step"]
    assert step < 5
    parts = load(
        train(Config.model_validate(yaml.safe_load(path.read_text())), resume=True)["last"]
    )
    curve = list(csv.DictReader((yolo_folder / "runs/tiny_train/curves.csv").open()))
    whole = load(train(config(yolo_folder, **changes, output=elsewhere(yolo_folder)))["last"])
    assert same_params(whole.params, parts.params)
    assert len([row for row in curve if row["loss"]]) == 5


def elsewhere(folder: Path) -> dict[str, str]:
    return {"name": "whole", "dir": str(folder / "whole"), "runs": str(folder / "whole/runs")}


def weights_kept(rank: int, port: int, folder: Path) -> None:
    """Make this process a rank of two, and keep its weights after training."""
    as_rank(rank, port)
    fit = job_stage.fit

    def watched(job: Any, resume: bool) -> Any:
        result = fit(job, resume)
        torch.save(job.model.state_dict(), folder / f"rank{rank}.pth")
        return result

    vars(job_stage)["fit"] = watched


def test_two_processes_have_equal_weights(yolo_folder: Path) -> None:
    path, port = config_file(yolo_folder, distill=ATTENTION), free_port()
    command = ("train", "-c", str(path))
    ranks = [
        start_kdp(*command, before=partial(weights_kept, i, port, yolo_folder)) for i in (0, 1)
    ]
    for process in ranks:
        done = ended(process)
        assert done.returncode == 0, done.stderr
    first, second = (torch.load(yolo_folder / f"rank{i}.pth", weights_only=True) for i in (0, 1))
    trained = [name for name in first if "running_" not in name and "num_batches" not in name]
    assert all(torch.equal(first[name], second[name]) for name in trained)


def test_score_weighted_taps_must_be_in_the_order_of_the_head(yolo_folder: Path) -> None:
    settings = config(
        yolo_folder, distill={"losses": {"score_weighted": {}}, "taps": HEAD_READS[::-1]}
    )
    student = lively()
    request = DistillRequest.from_config(settings)
    objective = distil.build_objective(task_for(ARCH, settings), student, request, 4)
    batch = default_collate([objective.data(2)[i] for i in range(2)])
    with pytest.raises(KdpError, match="the largest map first"):
        objective.objective(student, batch, 0)
