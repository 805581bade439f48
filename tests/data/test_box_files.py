"""Images with boxes in VOC folders and in Ultralytics' data sets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from kdp.data.boxes import AnnotatedImage, DatasetIssues, usable_boxes
from kdp.data.image_head import ORIENTATION
from kdp.data.images import image_size, read_rgb
from kdp.data.voc import voc_folder
from kdp.data.yolo_yaml import yolo_yaml
from kdp.errors import KdpError
from tests.data.box_helpers import (
    CLASSES,
    GOOD,
    HEIGHT,
    WIDTH,
    Thing,
    annotation,
    summary,
    voc,
    write_image,
    yolo,
)

# VOC folders


def test_voc_coordinates_count_from_one_and_include_both_ends(tmp_path: Path) -> None:
    (image,) = voc_folder(voc(tmp_path, {"a": GOOD}), "train", CLASSES)
    assert image.name == "a"
    assert image.boxes.tolist() == [[10, 5, 30, 25], [0, 0, WIDTH, HEIGHT]]
    assert image.labels.tolist() == [1, 0]
    assert (image.boxes.dtype, image.labels.dtype) == (np.float32, np.int64)
    assert image.read().shape == (HEIGHT, WIDTH, 3)


def test_voc_leaves_difficult_objects_out(tmp_path: Path, messages: list[str]) -> None:
    text = annotation([("dog", (1, 1, 9, 9), 1), ("cat", (1, 1, 9, 9), 0)])
    (image,) = voc_folder(voc(tmp_path, {"a": text}), "train", CLASSES)
    assert image.labels.tolist() == [0]
    assert not messages


def test_voc_issues_are_counted_and_named_in_one_line(tmp_path: Path, messages: list[str]) -> None:
    folder = voc(
        tmp_path,
        {
            "good": GOOD,
            "flat": annotation([("dog", (5, 5, 5, 9)), ("dog", (2, 2, 8, 8))]),
            "inverted": annotation([("dog", (20, 5, 10, 9))]),
            "outside": annotation([("cat", (WIDTH + 5, 5, WIDTH + 9, 9))]),
            "cut": annotation([("cat", (50, 30, WIDTH + 9, HEIGHT + 9))]),
            "odd": annotation([("bird", (2, 2, 8, 8))]),
            "twice": annotation([("cat", (2, 2, 8, 8)), ("cat", (2, 2, 8, 8))]),
            "wordy": annotation([("cat", (2, 2, 8, 8))]).replace(">8<", ">eight<"),
            "broken": "<annotation>",
            "none": None,
        },
    )
    images = {image.name: image for image in voc_folder(folder, "train", CLASSES)}
    assert {name: len(image.labels) for name, image in images.items()} == {
        "good": 2, "flat": 1, "inverted": 0, "outside": 0,
        "cut": 1, "odd": 0, "twice": 1, "wordy": 0,
    }  # fmt: skip
    assert images["cut"].boxes.tolist() == [[49, 29, WIDTH, HEIGHT]]
    (line,) = messages
    assert line == (
        f"{folder}, train: boxes without area or inverted, left out: 2 (flat, inverted); "
        "boxes outside the image, left out: 1 (outside); "
        "boxes clipped to the image: 1 (cut); "
        "boxes of an unknown class, left out: 1 (odd 'bird'); "
        "duplicate boxes, left out: 1 (twice); "
        "boxes without numbers, left out: 1 (wordy); "
        "images with an annotation that is not XML, left out: 1 (broken); "
        "images without annotation, left out: 1 (none)"
    )


def test_a_voc_annotation_that_cannot_be_read_is_not_called_missing(
    tmp_path: Path, messages: list[str]
) -> None:
    names = ["folder", "circle", "gone", "long"]
    folder = voc(tmp_path, {"good": GOOD, **dict.fromkeys(names)})
    files = {name: folder / "Annotations" / f"{name}.xml" for name in names}
    files["folder"].mkdir()
    files["circle"].symlink_to(files["circle"])
    files["gone"].symlink_to(folder / "nothing.xml")
    files["long"].write_bytes(b" " * 10_000_001)
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["good"]
    (line,) = messages
    assert "images whose annotation cannot be read, left out: 4 (folder, circle, gone" in line


def test_many_issues_are_a_few_names_and_a_count(messages: list[str]) -> None:
    issues = DatasetIssues("data")
    for name in "abcde":
        issues.add("boxes outside", name, 2)
    issues.report()
    issues.report()
    assert messages == ["data: boxes outside: 10 (a, b, c and 2 more)"]


def test_voc_without_a_size_reads_it_from_the_image(tmp_path: Path) -> None:
    things: list[Thing] = [("cat", (51, 31, WIDTH, HEIGHT))]
    folder = voc(tmp_path, {"a": annotation(things, None), "b": annotation(things, (0, 0))})
    for image in voc_folder(folder, "train", CLASSES):
        assert image.boxes.tolist() == [[50, 30, WIDTH, HEIGHT]]


def test_the_only_data_set_of_a_devkit_is_used(tmp_path: Path) -> None:
    voc(tmp_path / "VOCdevkit/VOC2012", {"a": GOOD})
    for folder in (tmp_path, tmp_path / "VOCdevkit"):
        assert len(voc_folder(folder, "train", CLASSES)) == 1
    voc(tmp_path / "VOCdevkit/VOC2007", {"a": GOOD})
    with pytest.raises(KdpError, match=r"several data sets; choose .*VOC2007 or .*VOC2012"):
        voc_folder(tmp_path, "train", CLASSES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_annotation_with_a_document_type_is_refused(tmp_path: Path, encoding: str) -> None:
    folder = voc(tmp_path, {"a": GOOD})
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "ha">]>{GOOD}'
    (folder / "Annotations/a.xml").write_bytes(bomb.encode(encoding))
    with pytest.raises(KdpError, match=r"a\.xml declares a document type"):
        voc_folder(folder, "train", CLASSES)


@pytest.mark.parametrize("kind", ["device", "pipe", "huge"])
def test_annotations_without_an_end_are_not_read(
    tmp_path: Path, messages: list[str], kind: str
) -> None:
    folder = voc(tmp_path / "voc", {"a": GOOD, "b": GOOD})
    file = yolo(tmp_path)
    label = sorted((tmp_path / "labels/train").glob("*.txt"))[0]
    for path in (folder / "Annotations/a.xml", label):
        path.unlink()
        if kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.touch()
            os.truncate(path, 10**12)
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["b"]
    assert label.stem not in {Path(image.name).stem for image in yolo_yaml(file, "train", CLASSES)}
    assert len(messages) == 2


def lack_image(folder: Path) -> None:
    (folder / "JPEGImages/b.jpg").unlink()


def lack_part(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).rename(folder / "elsewhere")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lack_image, r"JPEGImages lacks 1 of the 2 images of train\.txt, such as b"),
        (lack_part("JPEGImages"), "not in VOC's layout: it has no folder JPEGImages"),
        (lack_part("Annotations"), "not in VOC's layout: it has no folder Annotations"),
        (lack_part("ImageSets"), "not in VOC's layout: it has no folder ImageSets/Main"),
        (lack_part("ImageSets/Main/train.txt"), "no split 'train' in ImageSets/Main; did you mean"),
    ],
)
def test_what_a_voc_folder_lacks_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], complaint: str
) -> None:
    folder = voc(tmp_path, {"a": GOOD, "b": GOOD})
    (folder / "ImageSets/Main/trainval.txt").write_text("a\n")
    spoil(folder)
    with pytest.raises(KdpError, match=complaint):
        voc_folder(folder, "train", CLASSES)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match="nowhere does not exist"):
        voc_folder(tmp_path / "nowhere", "train", CLASSES)


def test_a_data_set_without_any_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match="train, has no usable object; classes are bird"):
        voc_folder(voc(tmp_path, {"a": GOOD}), "train", ("bird",))


def test_an_image_that_gets_corrupt_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = voc(tmp_path, {"a": GOOD})
    (image,) = voc_folder(folder, "train", CLASSES)
    (folder / "JPEGImages/a.jpg").write_bytes(b"no image")
    with pytest.raises(KdpError, match=r"cannot read the image .*a\.jpg"):
        image.read()


def class_counts(images: Sequence[AnnotatedImage]) -> list[int]:
    """Boxes of each class."""
    return np.bincount(np.concatenate([image.labels for image in images])).tolist()


def test_bccd_is_read_with_its_known_issues(shared: Path, messages: list[str]) -> None:
    folder = shared / "data/bccd"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    classes = ("RBC", "WBC", "Platelets")
    train, val = (voc_folder(folder, split, classes) for split in ("train", "val"))
    assert (len(train), len(val)) == (205, 87)
    assert class_counts(train) == [2381, 214, 209]
    assert class_counts(val) == [967, 87, 83]
    assert train[0].read().shape == (480, 640, 3)
    assert messages == [
        f"{folder}, train: boxes without area or inverted, left out: 1 (BloodImage_00343)",
        f"{folder}, val: boxes without area or inverted, left out: 1 (BloodImage_00338)",
    ]


# Ultralytics' data sets


EXPECTED = {
    "a": [[1, 15, 15, 45, 25], [0, 0, 0, 30, 40]],
    "b": [[0, 6, 8, 30, 32]],
    "c": [],
}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"path": "."},
        {"path": None, "names": {0: "cat", 1: "dog"}},
        {"names": {"1": "dog", "0": "cat"}, "nc": 2, "download": "https://127.0.0.1/x.zip"},
        {"train": "images"},
        {"train": ["images/train"]},
        {"train": "../images/train"},
        {"train": "list.txt"},
    ],
)
def test_variants_of_a_yolo_data_set_are_read(tmp_path: Path, keys: dict[str, Any]) -> None:
    file = yolo(tmp_path / "set", **keys)
    listed = ("./images/train/a.jpg", "images/train/b.jpg", tmp_path / "set/images/train/c.jpg")
    (tmp_path / "set/list.txt").write_text("\n".join(map(str, listed)))
    assert summary(yolo_yaml(file, "train", CLASSES)) == EXPECTED


def test_a_data_yaml_outside_its_data_set_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo(tmp_path / "set")
    elsewhere = tmp_path / "other.yaml"
    keys = {"train": "images/train", "validation": "images/train", "names": list(CLASSES)}
    elsewhere.write_text(yaml.safe_dump({**keys, "path": str(tmp_path / "set")}))
    assert summary(yolo_yaml(elsewhere, "val", CLASSES)) == EXPECTED
    elsewhere.write_text(yaml.safe_dump({**keys, "path": "set"}))
    monkeypatch.chdir(tmp_path)
    assert summary(yolo_yaml(Path("other.yaml"), "train", CLASSES)) == EXPECTED


def test_labels_may_lie_beside_the_images(tmp_path: Path) -> None:
    write_image(tmp_path / "train/x.png")
    (tmp_path / "train/x.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "data.yaml").write_text("{train: train, names: [cat]}")
    (image,) = yolo_yaml(tmp_path / "data.yaml", "train", ("cat",))
    assert (image.name, image.boxes.tolist()) == ("train/x.png", [[0, 0, WIDTH, HEIGHT]])


def test_yolo_issues_are_reported_in_one_line(tmp_path: Path, messages: list[str]) -> None:
    file = yolo(tmp_path)
    lines = ["7 .5 .5 .1 .1", "0 .5 .5 0 .1", "0 2 2 .1 .1", "0 .9 .5 .4 .1", "0 .5 .5", "x y"]
    (tmp_path / "labels/train/c.txt").write_text("\n".join([*lines, "0.5 .5 .5 .1 .1"]))
    write_image(tmp_path / "images/train/d.jpg").write_bytes(b"no image")
    (tmp_path / "labels/train/d.txt").write_text("0 .5 .5 .1 .1")
    images = yolo_yaml(file, "train", CLASSES)
    assert summary(images) == {**EXPECTED, "c": [[0, 42, 18, 60, 22]]}
    assert messages == [
        f"{file}, train: boxes of an unknown class, left out: 1 (images/train/c.jpg 7); "
        "malformed lines, left out: 3 (images/train/c.jpg); "
        "boxes without area or inverted, left out: 1 (images/train/c.jpg); "
        "boxes outside the image, left out: 1 (images/train/c.jpg); "
        "boxes clipped to the image: 1 (images/train/c.jpg); "
        "corrupt images, left out: 1 (images/train/d.jpg)"
    ]


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"names": ["dog", "cat"]}, "has the classes dog, cat, not cat, dog"),
        ({"names": None}, "names must be a list of classes"),
        ({"names": {0: "cat", 2: "dog"}}, "names must be a list of classes"),
        ({"train": None, "val": "x"}, "no folder or list for the split 'train'; available: val"),
        ({"train": "nowhere"}, "the images .*nowhere do not exist"),
        ({"train": "labels"}, "no images in .*labels"),
        ({"train": "data.yaml"}, "neither a folder nor a .txt list"),
        ({"path": "nowhere"}, r"there is no folder nowhere \(`path`\)"),
        ({"kpt_shape": [17, 3]}, "a pose data set"),
    ],
)
def test_what_a_yolo_data_set_lacks_is_named(
    tmp_path: Path, keys: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(KdpError, match=complaint):
        yolo_yaml(yolo(tmp_path, **keys), "train", CLASSES)


@pytest.mark.parametrize("text", ["a: [", "- a", "", None])
def test_a_malformed_data_yaml_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "data.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(KdpError, match=r"data\.yaml"):
        yolo_yaml(file, "train", CLASSES)


def test_a_listed_image_that_is_missing_is_named(tmp_path: Path) -> None:
    file = yolo(tmp_path, train="list.txt")
    (tmp_path / "list.txt").write_text("images/train/a.jpg\nimages/train/z.jpg\n")
    with pytest.raises(KdpError, match=r"list\.txt lists images/train/z\.jpg, which is not in"):
        yolo_yaml(file, "train", CLASSES)


def test_reading_writes_nothing_beside_the_data(tmp_path: Path) -> None:
    file = yolo(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    yolo_yaml(file, "train", CLASSES)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_the_header_size_respects_exif_orientation(
    tmp_path: Path, suffix: str, turned: int
) -> None:
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[ORIENTATION] = turned
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, **({} if suffix == ".bmp" else {"exif": exif}))
    assert image_size(path) == read_rgb(path).shape[:2]


def test_boxes_with_infinite_corners_are_left_out(messages: list[str]) -> None:
    rows = np.array([[0, 1, 1, np.inf, 5], [0, np.nan, 1, 4, 5], [0, 1, 1, 4, 5]])
    boxes, labels = usable_boxes(rows, (HEIGHT, WIDTH), "a", DatasetIssues("data"))
    assert (boxes.tolist(), labels.tolist()) == ([[1, 1, 4, 5]], [0])
