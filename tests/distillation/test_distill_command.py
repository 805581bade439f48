"""Distillation through `kdp train` and `kdp validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.config.compose import load_config
from kdp.measure.complexity import count_macs_of
from kdp.models import build
from kdp.stages.train.train import train
from kdp.types import Arch
from tests.conftest import ROOT, TINY
from tests.distillation.helpers import student_config, teacher_files
from tests.runs import SHORT, complaints, config, config_file, run_kdp


def test_training_can_start_from_given_weights(tmp_path: Path) -> None:
    path = teacher_files(tmp_path)[0]
    model = {"name": "catanet", "args": TINY, "weights": path}
    train(config(tmp_path, model=model, distill=None, train={**SHORT, "steps": 1, "lr": 1e-12}))
    first, trained = load(Path(path)).params, load(tmp_path / "weights/tiny.pth").params
    names = [name for name in first if "means" not in name and "initted" not in name]
    assert all(torch.allclose(first[name], trained[name], atol=1e-6) for name in names)


def test_several_teachers_from_the_command_line(tmp_path: Path) -> None:
    paths = teacher_files(tmp_path, 2)
    file = config_file(tmp_path, distill={"losses": {"output": {}}}, teacher=None)
    override = f"++distill.teacher={{weights: [{', '.join(paths)}], shares: [2, 1]}}"
    done = run_kdp("train", "--config", str(file), "train.steps=2", override)
    assert done.returncode == 0, done.stderr
    record = load(tmp_path / "weights/tiny.pth").record
    assert [parent.path for parent in record.parents] == paths


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"weights": ["a.pth", "b.pth"], "shares": [1]}}, "1 shares for 2 teachers"),
        (
            {"teacher": {"weights": "nowhere.pth"}},
            "name the file with distill.teacher.weights=FILE",
        ),
        ({"taps": {"mid_convs.0": "mid_conv.1"}}, "did you mean 'mid_convs.1'"),
        ({"losses": {"fakd": {"schedule": "piecewis"}}}, "piecewise"),
    ],
)
def test_wrong_distillation_settings_are_a_one_line_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    plain = student_config(tmp_path).model_dump(mode="json")["distill"]
    file = config_file(tmp_path, teacher=None, distill={**plain, **changes})
    done = run_kdp("train", "--config", str(file))
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert message in line


def test_validate_checks_teachers_and_gates(tmp_path: Path) -> None:
    plain = student_config(tmp_path).model_dump(mode="json")
    sections = {"dynamic": {"end_step": 4}, "mac_constraint": 0.9}
    changes = {key: plain[key] for key in ("model", "distill", "teacher")}
    file = config_file(tmp_path, **changes, **sections, finetune=None)
    good = run_kdp("validate", "--config", str(file))
    assert good.returncode == 0, good.stdout
    assert "added gates to" in good.stdout
    Path(plain["distill"]["teacher"]["weights"]).unlink()
    bad = run_kdp("validate", "--config", str(file))
    assert bad.returncode == 2
    assert "FAIL train" in bad.stdout
    assert "teacher_0.pth does not exist" in bad.stdout


def test_the_shipped_student_has_the_documented_size() -> None:
    config = load_config(ROOT / "configs" / "train_student_distill.yml")
    assert config.model is not None
    network = build(config.model.name, **config.model.args)
    assert sum(p.numel() for p in network.parameters()) == 227_487
    x = torch.rand(1, 3, 64, 64)
    large = count_macs_of(Arch("catanet", {"upscale": 2}), x)
    assert count_macs_of(config.model.arch, x) / large == pytest.approx(0.358, abs=5e-4)
