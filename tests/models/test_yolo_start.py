"""Trainings that start from YOLO11 weights of other classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import Artifact, save
from kdp.config import Config, ModelConfig
from kdp.errors import KdpError
from kdp.models.ultralytics_file import write_ultralytics
from kdp.models.ultralytics_names import to_ultralytics
from kdp.stages.train.train import starting_point, train
from kdp.types import Arch
from tests.models.yolo_helpers import ARCH, STEPS, config, lively

COCO = [f"thing {number}" for number in range(80)]
PETS = ["cat", "dog"]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of Ultralytics with the 80 classes of COCO, and the same of kdp beside it."""
    folder, model = tmp_path_factory.mktemp("coco"), lively(classes=COCO, image_size=640)
    params, path = model.state_dict(), folder / "yolo11n.pt"
    write_ultralytics(path, to_ultralytics(params), "n", COCO, 640, {})
    arch = ARCH.with_args(classes=COCO, image_size=640)
    save(path.with_suffix(".pth"), Artifact(params, arch))
    return path


def start(path: Path, **args: Any) -> tuple[dict[str, torch.Tensor], Arch]:
    torch.manual_seed(1)
    section = ModelConfig.model_validate({"name": "yolo11", "args": args, "weights": path})
    settings = Config.model_validate({"output": {"name": "a"}})
    model, arch = starting_point(section, settings)
    return model.state_dict(), arch


def of_the_scores(name: str) -> bool:
    return name.startswith("layers.23.cv3.")


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("classes", [PETS, [f"breed {number}" for number in range(120)]])
def test_weights_of_other_classes_start_a_training(
    coco: Path, suffix: str, classes: list[str], messages: list[str]
) -> None:
    params, arch = start(coco.with_suffix(suffix), scale="n", classes=classes, image_size=320)
    assert (arch.args["classes"], arch.args["image_size"]) == (classes, 320)
    before = lively(classes=COCO).state_dict()
    kept = [name for name in params if not of_the_scores(name)]
    assert all(torch.equal(params[name], before[name]) for name in kept)
    assert params["layers.23.cv3.0.2.weight"].shape[0] == len(classes)
    (line,) = messages
    assert "other classes (thing 0, thing 1," in line
    assert "51 of 552 tensors start anew" in line
    # The width of the branches of the scores depends on the number of classes.
    assert all(f"layers.23.cv3.{i} (17 of 26)" in line for i in range(3))


def test_as_many_classes_of_other_names_are_scored_anew(coco: Path, messages: list[str]) -> None:
    params, arch = start(coco, scale="n", classes=COCO[::-1])
    before = lively(classes=COCO).state_dict()
    changed = {name for name in params if not torch.equal(params[name], before[name])}
    # Biases start from the number of classes alone, which is the same.
    assert changed == {f"layers.23.cv3.{i}.2.weight" for i in range(3)}
    assert arch.args["classes"] == COCO[::-1]
    (line,) = messages
    assert "6 of 552 tensors start anew" in line
    assert all(f"layers.23.cv3.{i} (2 of 26)" in line for i in range(3))


@pytest.mark.parametrize("args", [{}, {"classes": COCO}, {"classes": COCO, "image_size": 320}])
def test_the_same_classes_keep_all_weights(
    coco: Path, args: dict[str, Any], messages: list[str]
) -> None:
    params, arch = start(coco, scale="n", **args)
    before = lively(classes=COCO).state_dict()
    assert all(torch.equal(params[name], before[name]) for name in before)
    assert arch.args["image_size"] == args.get("image_size", 640)
    assert not messages


@pytest.mark.parametrize("args", [{"scale": "s"}, {"scale": "n", "decoded": True}])
def test_weights_of_another_network_are_refused(coco: Path, args: dict[str, Any]) -> None:
    with pytest.raises(KdpError, match=f"the configuration says {list(args)[-1]}="):
        start(coco, classes=PETS, **args)


def test_a_training_on_other_classes_runs(coco: Path, yolo_folder: Path) -> None:
    model = {**ARCH.plain(), "weights": str(coco)}
    settings = config(yolo_folder, model=model, train={**STEPS, "steps": 1, "validate_every": 1})
    assert train(settings)["best"].exists()
