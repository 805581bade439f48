"""A teacher that does not fit its student ends in one line, before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from kdp.artifacts import Artifact, make_record, save
from kdp.models import build
from kdp.types import Arch
from tests import runs
from tests.conftest import ROOT, TINY
from tests.in_process import call_kdp

FACES = {"name": "mask_classifier", "args": {"channels": [4], "image_size": 16}}
SCENES = {"name": "rep_mobile", "args": {"stem": 4, "channels": [4], "hidden": [4]}}
SCENES["args"] |= {"strides": [[2, 2]]}  # type: ignore[operator]
LOGITS = {"losses": {"logits": {}}}


def config_file(folder: Path, model: dict[str, Any], distill: dict[str, Any]) -> Path:
    if model["name"] == "catanet":
        return runs.config_file(folder, model=model, distill=distill)
    plain = {"device": "cpu", "output": {"name": "a", "dir": str(folder)}, "train": runs.SHORT}
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump({**plain, "model": model, "distill": distill}))
    return path


@pytest.mark.parametrize(
    ("model", "teacher", "losses"),
    [
        (FACES, "catanet_teacher_x2", {"logits": {}}),
        (SCENES, "face_mask_small", {"logits": {}}),
        ({"name": "catanet", "args": TINY}, "face_mask_small", {"output": {}}),
        ({"name": "catanet", "args": TINY}, "face_mask_small", {"fakd": {}}),
    ],
)
def test_a_teacher_of_another_family_is_named(
    tmp_path: Path, model: dict[str, Any], teacher: str, losses: dict[str, Any]
) -> None:
    weights = ROOT / "weights" / f"{teacher}.pth"
    distill = {"losses": losses, "teacher": {"weights": str(weights)}}
    ended = call_kdp("train", "-c", config_file(tmp_path, model, distill))
    assert ended.code == 2
    assert f"{teacher}.pth holds" in ended.line
    assert "a network of another family" in ended.line


@pytest.mark.parametrize("command", ["train", "validate"])
def test_a_teacher_of_another_scale_is_named(tmp_path: Path, command: str) -> None:
    args = {**TINY, "upscale": 3}
    params = build("catanet", **args).state_dict()
    save(tmp_path / "x3.pth", Artifact(params, Arch("catanet", args), make_record("train", {})))
    distill = {"losses": {"output": {}}, "teacher": {"weights": str(tmp_path / "x3.pth")}}
    config = config_file(tmp_path, {"name": "catanet", "args": TINY}, distill)
    ended = call_kdp(command, "-c", config)
    assert ended.code == 2
    shapes = r"the student's output has shape (3, 24, 24), the teacher's (3, 36, 36)"
    assert shapes in ended.stdout + ended.stderr


def test_a_teacher_with_other_classes_is_named(tmp_path: Path) -> None:
    args = {"channels": [4], "image_size": 16, "classes": ["a", "b", "c"]}
    params = build("mask_classifier", **args).state_dict()
    torch.manual_seed(0)
    arch = Arch("mask_classifier", args)
    save(tmp_path / "abc.pth", Artifact(params, arch, make_record("train", {})))
    distill = {**LOGITS, "teacher": {"weights": str(tmp_path / "abc.pth")}}
    ended = call_kdp("train", "-c", config_file(tmp_path, FACES, distill))
    assert (ended.code, "abc.pth has the classes a, b, c" in ended.line) == (2, True)
