"""No family trains on what it is evaluated on, whatever the files are called."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdp.config import Config
from kdp.errors import KdpError
from kdp.stages.train.finetune import finetune
from kdp.stages.train.train import train
from kdp.stages.validate import validate
from tests import runs
from tests.data.audio_helpers import sine, table
from tests.runs import SHORT


def write_images(folder: Path, seed: int, count: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(seed + number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), noise)


def super_resolution(folder: Path) -> dict[str, Any]:
    write_images(folder / "train/hr", 0)
    write_images(folder / "test/hr", 10)
    return {
        "model": {"name": "catanet", "args": runs.TINY},
        "data": {"kind": "hr_only", "hr": str(folder / "train/hr"), "patch_size": 12},
        "evaluation": {"real": {"kind": "hr_only", "hr": str(folder / "test/hr")}},
    }


def faces(folder: Path) -> dict[str, Any]:
    for number, part in enumerate(("train/with_mask", "train/without_mask", "test/with_mask")):
        write_images(folder / part, 10 * number)
    write_images(folder / "test/without_mask", 30)
    args = {"channels": [4, 6], "image_size": 32}
    return {
        "model": {"name": "mask_classifier", "args": args},
        "data": {"kind": "folders", "folder": str(folder / "train")},
        "evaluation": {"real": {"kind": "folders", "folder": str(folder / "test")}},
    }


def boxes(folder: Path) -> dict[str, Any]:
    pytest.importorskip("ultralytics")
    for number, part in enumerate(("train", "test")):
        write_images(folder / part / "images", 10 * number)
        (folder / part / "labels").mkdir()
        for label in range(3):
            (folder / part / f"labels/{label}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    file = folder / "data.yaml"
    file.write_text("{train: train/images, val: test/images, names: [cat]}")
    args = {"scale": "n", "classes": ["cat"], "image_size": 64}
    samples = {"kind": "yolo", "folder": str(file)}
    model = {"name": "yolo11", "args": args}
    return {"model": model, "data": samples, "evaluation": {"real": samples}}


def sounds(folder: Path) -> dict[str, Any]:
    soundfile = pytest.importorskip("soundfile")
    names = [f"{part}/{number}.wav" for part in ("train", "test") for number in range(3)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, sine(100 + number), 32_000)
    rows = [(name, "bus", "x", "a") for name in names]
    table(folder / "meta.csv", ("filename", "scene_label", "identifier", "source_label"), rows)
    for split, members in (("split100", names[:3]), ("test", names[3:])):
        table(folder / f"{split}.csv", ("filename",), [(name,) for name in members])
    args = {"stem": 4, "channels": [8, 8], "hidden": [10, 12], "strides": [[2, 2], [2, 2]]}
    samples = {"kind": "scenes", "folder": str(folder)}
    model = {"name": "rep_mobile", "args": args}
    return {"model": model, "data": samples, "evaluation": {"real": samples}}


SPLITS = {"yolo": "train", "scenes": "split100.csv"}
"""Kind of data -> the split to train on."""
FAMILIES = [super_resolution, faces, boxes, sounds]


def first_files(folder: Path) -> tuple[Path, Path]:
    """A file to train on and one to evaluate on, of the same class."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".wav"))
    train_file = next(p for p in files if "train" in p.parts)
    return train_file, next(p for p in files if "test" in p.parts)


def copy(source: Path, target: Path) -> None:
    shutil.copy(source, target)


def link(source: Path, target: Path) -> None:
    target.unlink()
    target.symlink_to(source)


def config(folder: Path, plain: dict[str, Any]) -> Config:
    output = {"name": "tiny", "dir": str(folder / "w"), "runs": str(folder / "runs")}
    return Config.model_validate({"device": "cpu", "output": output, "train": SHORT, **plain})


@pytest.mark.parametrize("share", [copy, link])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_a_file_of_the_evaluation_is_refused(
    tmp_path: Path,
    family: Callable[[Path], dict[str, Any]],
    share: Callable[[Path, Path], None],
) -> None:
    settings = config(tmp_path, family(tmp_path))
    share(*first_files(tmp_path))
    with pytest.raises(KdpError, match="1 files of the evaluation set 'real' are in the training"):
        train(settings)
    assert not (tmp_path / "w").exists()
    last = list(validate(settings))[-1]
    assert (last.name, last.passed) == ("data", False)
    assert "'real' are in the training data too" in last.message


@pytest.mark.parametrize("family", FAMILIES)
def test_training_on_the_evaluation_set_itself_is_refused(
    tmp_path: Path, family: Callable[[Path], dict[str, Any]]
) -> None:
    plain = family(tmp_path)
    same = {key: value for key, value in plain["data"].items() if key != "patch_size"}
    if same["kind"] in SPLITS:
        same["split"] = SPLITS[same["kind"]]
    settings = config(tmp_path, {**plain, "evaluation": {"other": same}})
    with pytest.raises(KdpError, match=r"[36] files of the evaluation set 'other'"):
        train(settings)


def test_fine_tuning_on_the_evaluation_set_is_refused(tmp_path: Path) -> None:
    runs.prune(tmp_path)
    settings = runs.config(tmp_path)
    shutil.copy(tmp_path / "images/0.png", tmp_path / "evaluation/1.png")
    with pytest.raises(KdpError, match="1 files of the evaluation set 'small'"):
        finetune(settings)


def test_data_without_files_in_common_are_accepted(tmp_path: Path) -> None:
    settings = config(tmp_path, super_resolution(tmp_path))
    checks = {check.name: check.passed for check in validate(settings)}
    assert checks["data"]
