"""Detection on several data sets, and on all images of a VOC folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdp.config import Config
from kdp.config.compose import load_config
from kdp.errors import KdpError
from kdp.tasks.detection.task import Detection
from kdp.types import Arch
from tests.data.test_box_files import CLASSES, GOOD, voc, write_image

VOC_IMAGES = 17_125


def numbered(root: Path, first: int, count: int, split: str = "train") -> Path:
    """A VOC folder whose images differ from those of other numbers."""
    voc(root, {f"{first + i:06}": GOOD for i in range(count)}, split)
    for i in range(count):
        path = root / f"JPEGImages/{first + i:06}.jpg"
        path.write_bytes(path.read_bytes() + bytes([first + i]))
    return root


def task_of(data: dict[str, Any], evaluation: dict[str, Any] | None = None) -> Detection:
    plain = {"output": {"name": "a"}, "data": data, "evaluation": evaluation or {"toy": {}}}
    arch = Arch("yolo11", {"classes": list(CLASSES), "image_size": 64})
    return Detection(arch, Config.model_validate(plain))


def names(task: Detection) -> list[str]:
    return [image.name for image in task.training_samples]


def test_all_images_of_a_folder_need_no_list(tmp_path: Path) -> None:
    folder = numbered(tmp_path, 1, 4)
    (folder / "ImageSets/Main/train.txt").write_text("000001\n")
    task = task_of({"kind": "voc", "folder": folder, "split": "all"}, {"val": section(folder)})
    assert names(task_of({"kind": "voc", "folder": folder})) == ["000001"]
    assert names(task) == ["000002", "000003", "000004"]


def section(folder: Path, split: str = "train") -> dict[str, Any]:
    return {"kind": "voc", "folder": folder, "split": split}


@pytest.mark.parametrize("name", ["000001", "renamed"])
def test_images_that_are_evaluated_on_are_left_out_and_counted(
    tmp_path: Path, name: str, messages: list[str]
) -> None:
    train, test = numbered(tmp_path / "VOC2012", 1, 3), numbered(tmp_path / "VOC2007", 11, 3)
    voc(test, {name: GOOD, "000011": GOOD}, "test")
    for other in ("000001", "000011"):
        source = (train if other == "000001" else test) / f"JPEGImages/{other}.jpg"
        target = test / "JPEGImages" / f"{name if other == '000001' else other}.jpg"
        if source != target:
            shutil.copy(source, target)
    task = task_of(section(train, "all"), {"val": section(test, "test")})
    assert names(task) == ["000002", "000003"]
    assert [line for line in messages if "1 of 3 images are evaluated on, left out" in line]


def test_images_of_every_evaluation_set_are_left_out(tmp_path: Path) -> None:
    folder = numbered(tmp_path, 1, 5)
    for split, name in (("val", "000001"), ("test", "000004")):
        (folder / f"ImageSets/Main/{split}.txt").write_text(f"{name}\n")
    sets = {"a": section(folder, "val"), "b": section(folder, "test")}
    assert names(task_of(section(folder, "all"), sets)) == ["000002", "000003", "000005"]


def test_a_folder_of_evaluated_images_alone_is_refused(tmp_path: Path) -> None:
    folder = numbered(tmp_path, 1, 2)
    with pytest.raises(KdpError, match="none is left to train"):
        names(task_of(section(folder, "all"), {"val": section(folder)}))


def yolo(root: Path) -> Path:
    write_image(root / "images/bird.png")
    (root / "labels").mkdir()
    (root / "labels/bird.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    path = root / "birds.yaml"
    path.write_text(yaml.safe_dump({"path": str(root), "train": "images", "names": [*CLASSES]}))
    return path


@pytest.mark.parametrize(
    ("own", "sets", "expected"),
    [
        ({}, [{"folder": "a"}, {"folder": "b"}], ["000001", "000002", "000011"]),
        (
            {"split": "val"},
            [{"folder": "b"}, {"folder": "a", "split": "train"}],
            ["000021", "000001", "000002"],
        ),
        (
            {},
            [{"folder": "b", "split": "all"}, {"folder": "c", "kind": "yolo"}],
            ["000011", "000021", "bird"],
        ),
    ],
)
def test_several_sets_are_one(
    tmp_path: Path, own: dict[str, Any], sets: list[dict[str, Any]], expected: list[str]
) -> None:
    folders = {"a": numbered(tmp_path / "a", 1, 2), "b": numbered(tmp_path / "b", 11, 1)}
    voc(tmp_path / "b", {"000021": GOOD}, "val")
    folders["c"] = yolo(tmp_path / "c")
    located = [{**box_set, "folder": str(folders[box_set["folder"]])} for box_set in sets]
    data = {"kind": "voc", "sets": located, **own}
    task = task_of(data, {"val": section(folders["a"])})
    assert [Path(name).stem for name in names(task)] == expected
    again = Config.model_validate(task.config.plain())
    assert names(Detection(task.arch, again)) == names(task)


def test_several_sets_are_evaluated_as_one(tmp_path: Path) -> None:
    sets = [{"folder": str(numbered(tmp_path / str(i), 10 * i, 2, "test"))} for i in (1, 2)]
    task = task_of({"kind": "embedded"}, {"val": {"kind": "voc", "split": "test", "sets": sets}})
    assert len(task.evaluation_sets["val"]) == 4


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"folder": "a", "sets": [{"folder": "b"}]},
        {"folder": None},
        {"sets": []},
        {"sets": [{"split": "train"}]},
        {"sets": [{"folder": "a", "kind": "coco"}]},
    ],
)
def test_one_folder_or_several_sets_are_required(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give folder, or sets|sets"):
        task_of({"kind": "voc", **data})


# The study


def study(*overrides: str) -> Config:
    return load_config(Path("yolo11_attention_transfer.yml"), list(overrides))


def test_the_study_is_as_published() -> None:
    config = study()
    settings = config.train.in_steps(VOC_IMAGES)
    assert (settings.epochs, settings.batch_size) == (150, 64)
    assert settings.steps == 150 * 268
    assert settings.patience == 100 * 268
    assert settings.validate_every == 268
    assert config.data.workers == 12
    assert [(s.folder.name, s.split) for s in config.data.sources("train")] == [("VOC2012", "all")]
    (val,) = (section.sources("val") for section in config.evaluation.values())
    assert [(s.folder.name, s.split) for s in val] == [("VOC2007", "test")]
    loss = config.distill.losses["attention_transfer"]
    assert (loss.weight, loss.align, config.distill.task_reduction) == (0.75, True, None)
    assert Detection.task_reduction == "sum"


@pytest.mark.parametrize("samples", [1, 500, 16_551])
def test_the_study_lasts_150_epochs_of_any_data(samples: int) -> None:
    settings = study().train.in_steps(samples)
    epoch = -(-samples // 64)
    assert (settings.steps, settings.patience) == (150 * epoch, 100 * epoch)


def test_the_study_has_options() -> None:
    config = study("boxes=voc0712", "distill.losses.attention_transfer.align=false")
    sources = [(source.folder.name, source.split) for source in config.data.sources("train")]
    assert sources == [("VOC2007", "trainval"), ("VOC2012", "trainval")]
    assert not config.distill.losses["attention_transfer"].align
    assert config.data.workers == 12
