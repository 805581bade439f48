"""A small YOLO11, its configuration, and images in VOC's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import torch
import yaml
from torch import Tensor, nn

from kdp.config import Config
from kdp.data.toy_shapes import CLASSES, toy_shapes
from kdp.models import build
from kdp.models.ultralytics import import_ultralytics
from kdp.models.ultralytics_names import to_ultralytics
from kdp.types import Arch

SIZE = 64
ARCH = Arch("yolo11", {"scale": "n", "classes": list(CLASSES), "image_size": SIZE})
ATTENTION = {"losses": {"attention_transfer": {"weight": 0.75, "schedule": "piecewise"}}}
HEAD_READS = ["layers.16", "layers.19", "layers.22"]
STEPS = {
    "steps": 4,
    "batch_size": 2,
    "lr": 1e-3,
    "validate_every": 4,
    "checkpoint_every": 1,
    "log_every": 1,
}


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder), "runs": str(folder / "runs")},
        "model": ARCH.plain(),
        "teacher": str(folder / "teacher.pth"),
        "data": {"kind": "voc", "folder": str(folder / "voc")},
        "evaluation": {"toy": {"kind": "voc", "folder": str(folder / "voc"), "split": "val"}},
        "train": STEPS,
        "finetune": STEPS,
        "prune": {"criterion": "magnitude", "calibration": {"patches": 2}},
        "measure": {"latency_runs": 1, "warmup_runs": 0},
        **changes,
    }


def config(folder: Path, **changes: Any) -> Config:
    return Config.model_validate(settings(folder, **changes))


def config_file(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(settings(folder, **changes)))
    return path


def lively(scale: str = "n", **args: Any) -> nn.Module:
    """A network with non-trivial batch normalisation."""
    torch.manual_seed(0)
    model = build("yolo11", **{**ARCH.args, "scale": scale, **args})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def in_ultralytics(model: nn.Module, scale: str = "n") -> Any:
    """Ultralytics' network with the weights of a network of kdp."""
    plain = import_ultralytics("nn.tasks").DetectionModel(
        f"yolo11{scale}.yaml", nc=len(CLASSES), verbose=False
    )
    plain.load_state_dict(to_ultralytics(model.state_dict()))
    plain.args = import_ultralytics("cfg").get_cfg()
    return plain


def ultralytics_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch of kdp as the losses of Ultralytics read it."""
    present = batch["boxes"][..., 0] >= 0
    rows = batch["boxes"][present]
    numbers = present.nonzero()[:, 0].float()
    return {
        "img": batch["image"],
        "cls": rows[:, :1],
        "bboxes": rows[:, 1:],
        "batch_idx": numbers,
    }


def write_voc(root: Path, count: int) -> None:
    """So many images each to train on and to evaluate on."""
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    images = [*toy_shapes(validation=False)[:count], *toy_shapes(validation=True)[:count]]
    for number, shapes in enumerate(images):
        image = shapes.read()
        cv2.imwrite(str(root / f"JPEGImages/{number}.jpg"), image[:, :, ::-1])
        height, width = image.shape[:2]
        objects = "".join(
            f"<object><name>{CLASSES[label]}</name><bndbox><xmin>{x0 + 1:.0f}</xmin>"
            f"<ymin>{y0 + 1:.0f}</ymin><xmax>{x1:.0f}</xmax><ymax>{y1:.0f}</ymax></bndbox></object>"
            for label, (x0, y0, x1, y1) in zip(shapes.labels, shapes.boxes, strict=True)
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"
        (root / f"Annotations/{number}.xml").write_text(text)
    for split, first in (("train", 0), ("val", count)):
        numbers = map(str, range(first, first + count))
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(numbers))
