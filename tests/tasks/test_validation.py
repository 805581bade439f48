"""What training measures: the loss on evaluation sets and the metrics of its batches."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from kdp.config import Config
from kdp.data.boxes import AnnotatedImage
from kdp.data.labelled import resized
from kdp.data.patches import to_tensor
from kdp.data.segments import waves
from kdp.measure.image_quality import luma_psnr, psnr
from kdp.models import build
from kdp.stages.train.train import train
from kdp.tasks import task_for
from kdp.tasks.classification.task import Classification
from kdp.types import Arch
from tests.conftest import TINY
from tests.models.test_face_mask import settings as face_settings
from tests.models.test_yolo import ARCH as YOLO
from tests.runs import settings

ARCHS = {
    "catanet": Arch("catanet", TINY),
    "mask_classifier": Arch("mask_classifier", {"channels": [4, 4, 4]}),
    "cp_mobile": Arch(
        "cp_mobile", {"stem": 4, "channels": [8], "hidden": [8], "strides": [[2, 2]]}
    ),
    "yolo11": YOLO,
}


def small_task(folder: Path, name: str) -> Any:
    """A task with three evaluation samples in the set `toy`."""
    sets = {"toy": settings(folder)["evaluation"]["small"] if name == "catanet" else {}}
    config = Config.model_validate({"output": {"name": "x"}, "evaluation": sets})
    task: Any = task_for(ARCHS[name], config)
    task.evaluation_sets = {"toy": list(task.evaluation_sets["toy"])[:3]}
    return task


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = build(name, **ARCHS[name].args)
    model.calls = []  # type: ignore[assignment]
    model.register_forward_hook(lambda self, args, _: self.calls.append(args[0].shape))  # type: ignore[operator]
    return model


def surprise(logits: Tensor, label: int) -> float:
    return -math.log(float(logits[0].double().softmax(0)[label]))


@torch.no_grad()
def expected_loss(name: str, task: Any, model: nn.Module) -> float:
    """The loss, from the network's raw outputs on one sample after another."""
    samples = task.evaluation_sets["toy"]
    if name == "catanet":
        losses = [
            float((model(to_tensor(s.lr())[None])[0] - to_tensor(s.hr())).abs().mean())
            for s in samples
        ]
    elif name == "mask_classifier":
        inputs = [to_tensor(resized(s.read(), task.size))[None] for s in samples]
        losses = [surprise(model(x), s.label) for x, s in zip(inputs, samples, strict=True)]
    else:
        labels = [s.clip.label for s in samples]
        mels = [task.mel(wave[None]) for wave in waves(samples)]
        losses = [surprise(model(x), label) for x, label in zip(mels, labels, strict=True)]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("name", ["catanet", "mask_classifier", "cp_mobile"])
def test_the_validation_loss_is_the_mean_over_the_samples(tmp_path: Path, name: str) -> None:
    task, model = small_task(tmp_path, name), network(name)
    loss = task.validate(model)["toy"]["loss"]
    assert loss == pytest.approx(expected_loss(name, task, model.eval()), rel=1e-4)


def test_the_validation_loss_of_a_detector_is_that_of_unaugmented_training_samples(
    tmp_path: Path,
) -> None:
    task, model = small_task(tmp_path, "yolo11"), network("yolo11")
    images = [cropped(image) for image in task.evaluation_sets["toy"]]
    task.evaluation_sets, task.training_samples = {"toy": images}, images
    data = task.samples(len(images), 0, augment=False)
    batch = default_collate([data[number] for number in range(len(images))])
    loss = task.validate(model)["toy"]["loss"]
    with torch.no_grad():
        expected = float(task.loss(model.eval()(batch["image"]), batch))
    # The batches have another order, which rounds differently.
    assert loss == pytest.approx(expected, rel=1e-4)


def cropped(image: AnnotatedImage) -> AnnotatedImage:
    """The upper 100 rows: letterboxed with grey above and below."""
    boxes = np.clip(image.boxes, 0, np.array((160, 100, 160, 100), np.float32))
    inside = boxes[:, 3] > boxes[:, 1]
    pixels = image.read()[:100]
    return replace(image, read=lambda: pixels, boxes=boxes[inside], labels=image.labels[inside])


@pytest.mark.parametrize("name", ARCHS)
def test_validation_adds_the_loss_to_the_metrics_in_one_pass(tmp_path: Path, name: str) -> None:
    task, model = small_task(tmp_path, name), network(name)
    evaluated, calls = task.evaluate(model), list(model.calls)  # type: ignore[arg-type]
    model.calls.clear()  # type: ignore[operator]
    validated = task.validate(model)["toy"]
    assert model.calls == calls
    assert math.isfinite(validated.pop("loss"))
    assert validated == evaluated["toy"]


def test_psnr_of_patches_is_that_of_their_images() -> None:
    a, b = torch.rand(2, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round()
    a, b = (x.transpose(0, 1) for x in (a, b))
    images = [[x.permute(1, 2, 0).numpy().astype(np.uint8) for x in y] for y in (a, b)]
    expected = [psnr(*pair) for pair in zip(*images, strict=True)]
    assert luma_psnr(a / 255, b / 255).tolist() == pytest.approx(expected, rel=1e-5)
    assert luma_psnr(a / 255 + 9, torch.ones_like(a)).tolist() == [100, 100]


@pytest.mark.parametrize("distils", [False, True])
def test_training_accuracy_is_that_of_the_batches_since_the_last_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distils: bool
) -> None:
    correct: list[float] = []

    def observed(self: Any, output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        guesses = [row.index(max(row)) for row in output.tolist()]
        pairs = zip(guesses, batch["label"].tolist(), strict=True)
        correct.append(sum(guess == label for guess, label in pairs) / len(guesses))
        return F.cross_entropy(output, batch["label"])

    plain = face_settings(tmp_path)
    if distils:
        train(plain.model_copy(update={"distill": None}))
    monkeypatch.setattr(Classification, "loss", observed)
    monkeypatch.setattr(Classification, "validate", Classification.evaluate)
    section = plain.train.model_copy(update={"steps": 5, "log_every": 2, "validate_every": 5})
    output = plain.output.model_copy(update={"name": "student"})
    changes = {"train": section, "output": output, **({} if distils else {"distill": None})}
    train(plain.model_copy(update=changes))
    lines = (tmp_path / "runs/student_train/curves.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    assert [row["step"] for row in rows] == [2, 4, 5]
    pairs = [correct[:2], correct[2:4], correct[4:]]
    expected = [sum(pair) / len(pair) for pair in pairs]
    assert [row["accuracy"] for row in rows] == pytest.approx(expected)
