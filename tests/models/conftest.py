"""Fixtures of the model tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdp.artifacts import Artifact, make_record, save
from tests.models.ultralytics_helpers import CLASSES as CELLS
from tests.models.yolo_helpers import ARCH, lively, write_voc


@pytest.fixture(scope="session")
def yolo_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with shapes in VOC's layout, and a teacher."""
    folder = tmp_path_factory.mktemp("yolo")
    write_voc(folder / "voc", 4)
    model = lively()
    save(folder / "teacher.pth", Artifact(model.state_dict(), ARCH, make_record("train", {})))
    return folder


@pytest.fixture
def yolo_folder(yolo_template: Path, tmp_path: Path) -> Path:
    """A copy of the template for one test to write into."""
    return shutil.copytree(yolo_template, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def ultralytics_data(tmp_path: Path) -> Path:
    """Four images of one box each, as Ultralytics reads them; the path of the YAML file."""
    folder = tmp_path / "data"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.integers(0, 80, (64, 64, 3), dtype=np.uint8)
        image[16:40, 8 + 4 * i : 32 + 4 * i] = 200
        cv2.imwrite(str(folder / "images" / f"{i}.png"), image)
        box = f"{i % 3} {(20 + 4 * i) / 64} {28 / 64} {24 / 64} {24 / 64}\n"
        (folder / "labels" / f"{i}.txt").write_text(box)
    description = f"path: {folder}\ntrain: images\nval: images\nnames: {CELLS}\n"
    (tmp_path / "data.yaml").write_text(description)
    return tmp_path / "data.yaml"
