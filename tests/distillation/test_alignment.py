"""Alignment of features of different widths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from kdp.artifacts import load
from kdp.distillation.alignment import Alignment
from kdp.models import build
from kdp.stages.train.train import train
from tests.distillation.helpers import NARROW, student_config
from tests.runs import config_file, run_kdp


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_alignment_gives_both_features_the_same_width_and_scale() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 5, 6), 100 + 7 * torch.randn(4, 8, 5, 6)
    aligned, wanted = Alignment(3, 8)(student, teacher)
    for feature in (aligned, wanted):
        assert feature.shape == teacher.shape
        assert feature.mean((0, 2, 3)).abs().max() < 1e-3
        torch.testing.assert_close(feature.std((0, 2, 3)), torch.ones(8), atol=0.02, rtol=0)


def test_alignment_learns_to_undo_a_change_of_basis() -> None:
    torch.manual_seed(0)
    student = torch.randn(4, 6, 5, 6)
    teacher = torch.einsum("oc,bchw->bohw", torch.randn(8, 6), student)
    alignment = Alignment(6, 8)
    optimizer = torch.optim.Adam(alignment.parameters(), lr=0.05)
    for _ in range(300):
        aligned, wanted = alignment(student, teacher)
        loss = (aligned - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3


def test_alignments_are_trained_but_not_saved_with_the_student(tmp_path: Path) -> None:
    settings = student_config(tmp_path)
    train(settings)
    artifact = load(tmp_path / "w/student.pth")
    assert artifact.params.keys() == build("catanet", **NARROW).state_dict().keys()
    state = load(tmp_path / "runs/student_train/checkpoint.pth").extra["training"]
    projection = state["extra_modules"]["0.aligned.0.project.weight"]
    torch.manual_seed(settings.seed)
    start = Alignment(6, 8).project.weight
    assert not torch.allclose(projection, start, atol=1e-4), "it is trained"
    assert torch.allclose(projection, start, atol=0.1), "but only a few steps"
    parts = rows(tmp_path / "runs/student_train/curves.jsonl")[0]
    assert {"task", "output", "feature", "feature_l2", "fakd"} <= parts.keys()
    assert artifact.record.parents[0].path.endswith("teacher_0.pth")


def test_an_aligned_student_trains_in_mixed_precision(tmp_path: Path) -> None:
    plain = student_config(tmp_path).model_dump(mode="json")
    changes = {key: plain[key] for key in ("model", "distill", "teacher")}
    file = config_file(tmp_path, **changes)
    done = run_kdp("train", "-c", str(file), "train.mixed_precision=bf16", "train.steps=2")
    assert done.returncode == 0, done.stderr
