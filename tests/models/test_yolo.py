"""YOLO11: equal to Ultralytics' network and loss, and run by `train`, `infer` and `compare`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import default_collate

from kdp.artifacts import load
from kdp.data.images import read_rgb
from kdp.data.toy_shapes import CLASSES
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.models.ultralytics_names import arch_of_plan, from_ultralytics
from kdp.models.yolo11 import decode
from kdp.tasks import task_for
from tests.conftest import same_params
from tests.models.yolo_helpers import (
    ARCH,
    ATTENTION,
    STEPS,
    config,
    config_file,
    in_ultralytics,
    lively,
    ultralytics_batch,
)
from tests.runs import run_kdp

SHORT = {**STEPS, "steps": 1, "validate_every": 1}


@pytest.mark.parametrize("scale", ["n", "s", "m"])
def test_the_network_equals_that_of_ultralytics(scale: str) -> None:
    model = lively(scale)
    plain = in_ultralytics(model, scale)
    x = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        (boxes, raw), output = plain.eval()(x), model(x)
    # Kernels for another number of channels may sum in another order.
    expected = torch.cat([raw["boxes"], raw["scores"]], 1)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(output, (96, 64)), boxes, rtol=1e-5, atol=1e-3)
    assert same_params(from_ultralytics(plain.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize(
    ("scale", "parameters"), [("n", 2_624_080), ("s", 9_458_752), ("m", 20_114_688)]
)
def test_the_network_has_its_published_parameter_count(scale: str, parameters: int) -> None:
    with torch.device("meta"):
        model = build("yolo11", scale=scale, classes=[str(i) for i in range(80)])
    # Ultralytics counts the 16 numbers of the bins as parameters.
    assert sum(p.numel() for p in model.parameters()) + 16 == parameters


def test_the_loss_matches_ultralytics(yolo_folder: Path) -> None:
    model, task = lively(), task_for(ARCH, config(yolo_folder))
    data = task.training_data(3)
    batch = default_collate([data[i] for i in range(3)])
    expected, _ = in_ultralytics(model).train().loss(ultralytics_batch(batch))
    loss = task.loss(model.train()(batch["image"]), batch)
    torch.testing.assert_close(loss * 3, expected.sum())


def test_a_model_yaml_replaces_the_teacher_in_a_dry_run(yolo_folder: Path) -> None:
    taught = {**ATTENTION, "teacher": {"weights": "yolo11s.yaml"}}
    done = run_kdp("train", "-c", str(config_file(yolo_folder, distill=taught, train=SHORT)))
    assert done.returncode == 0, done.stderr
    assert "yolo11s.yaml is a plan without weights" in done.stderr
    assert load(yolo_folder / "tiny.pth").record.parents == ()


def test_a_model_yaml_of_another_network_is_rejected() -> None:
    with pytest.raises(KdpError, match=r"yolo11n.yaml to yolo11x.yaml"):
        arch_of_plan("yolo12s.yaml", {})


def test_infer_draws_and_prints_boxes_above_the_confidence(yolo_folder: Path) -> None:
    image, teacher = yolo_folder / "voc/JPEGImages/0.jpg", yolo_folder / "teacher.pth"
    task, network = task_for(ARCH, config(yolo_folder)), load_network(teacher)[0]
    (all_detections,) = task.detect(network, iter([read_rgb(image)]), 0.001, 0.45)
    least = float(all_detections.scores.median())
    folder, confidence = str(yolo_folder / "out"), f"detect.confidence={least}"
    options = ["--headless", "--to", folder, "--set", confidence]
    done = run_kdp("infer", str(teacher), str(image), *options)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[0])
    assert set(printed) == {"file", "written", "ms", "objects"}
    assert Path(printed["written"]).exists()
    assert 0 < len(printed["objects"]) < len(all_detections.scores)
    assert all(detected["probability"] >= round(least, 4) for detected in printed["objects"])


def test_compare_names_the_protocol_and_the_precision_of_each_class(yolo_folder: Path) -> None:
    table = yolo_folder / "table.json"
    done = run_kdp(
        "compare",
        str(yolo_folder / "teacher.pth"),
        str(yolo_folder / "teacher.pth"),
        "-c",
        str(config_file(yolo_folder)),
        "--json",
        str(table),
    )
    assert done.returncode == 0, done.stderr
    text = table.read_text()
    assert "map50_95" in text
    assert all(f"ap {name}" in text for name in CLASSES)
