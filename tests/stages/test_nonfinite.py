"""Networks whose outputs are not finite are refused by name, and nothing of them is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdp.artifacts import Artifact, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.stages.compare.compare import evaluate
from kdp.stages.export.export import ExportRequest, export
from kdp.stages.infer.infer import infer
from kdp.stages.infer.request import InferRequest
from kdp.stages.prune.prune import prune
from kdp.stages.train.cache_targets import cache_targets
from kdp.types import Arch
from tests import runs
from tests.models.face_mask_helpers import SMALL
from tests.runs import config

NOT_FINITE = "the network's output is not finite"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose teacher has finite weights that overflow."""
    runs.prune(tmp_path)
    path = tmp_path / "teacher.pth"
    model, arch, artifact = load_network(path)
    params = model.state_dict()
    params["first_conv.weight"].fill_(3e38)
    save(path, Artifact(params, arch, artifact.record))
    return tmp_path


def request(folder: Path, whole: bool = False) -> InferRequest:
    image = str(folder / "images/0.png")
    return InferRequest([image], output=folder / "out", whole=whole)


def test_infer_writes_no_black_image(folder: Path) -> None:
    settings = config(folder)
    with pytest.raises(KdpError, match=rf"teacher\.pth: {NOT_FINITE}"):
        infer(folder / "teacher.pth", request(folder), settings, print)
    assert not (folder / "out").exists()


def test_infer_gives_no_label_without_probability(folder: Path) -> None:
    config(folder)
    params = build("mask_classifier", **SMALL).state_dict()
    name = next(name for name in params if params[name].ndim == 4)
    params[name] = torch.full_like(params[name], 3e38)
    save(folder / "faces.pth", Artifact(params, Arch("mask_classifier", SMALL)))
    lines: list[str] = []
    with pytest.raises(KdpError, match=rf"faces\.pth: {NOT_FINITE}"):
        infer(
            folder / "faces.pth",
            request(folder, whole=True),
            Config.model_validate({"output": {"name": "faces"}, "device": "cpu"}),
            lines.append,
        )
    assert not lines
    assert not (folder / "out").exists()


def test_evaluation_names_the_file(folder: Path) -> None:
    files = [folder / "weights/tiny_pruned.pth", folder / "teacher.pth"]
    with pytest.raises(KdpError, match=rf"teacher\.pth \(fp32\): {NOT_FINITE}"):
        evaluate(files, config(folder))


def test_export_names_the_file(folder: Path) -> None:
    with pytest.raises(KdpError, match=rf"teacher\.pth: {NOT_FINITE}"):
        export(folder / "teacher.pth", ExportRequest("onnx"), config(folder))
    assert not (folder / "teacher.onnx").exists()


@pytest.mark.parametrize("criterion", ["optin", "taylor"])
def test_prune_names_the_group_without_importance(folder: Path, criterion: str) -> None:
    calibration = {"patches": 2, "patch_size": 10}
    (folder / "weights/tiny_pruned.pth").unlink()
    settings = config(
        folder,
        prune={"criterion": criterion, "calibration": calibration},
        measure={"input_size": [16, 16]},
        mac_constraint=0.8,
    )
    with pytest.raises(KdpError, match=r"importance of blocks\.0\.\w+ is not finite: .*teacher"):
        prune(settings)
    assert not (folder / "weights/tiny_pruned.pth").exists()


def test_targets_that_are_not_finite_are_not_cached(folder: Path) -> None:
    with pytest.raises(KdpError, match=r"000000\.pth was not written: targets .* is not finite"):
        cache_targets(config(folder, finetune=None))
    assert not list((folder / "runs").rglob("*.pth"))
