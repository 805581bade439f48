"""Images with boxes whose files contradict each other are left out, and a line says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kdp.data.image_head import ORIENTATION
from kdp.data.voc import CORNERS, voc_folder
from kdp.data.yolo_yaml import yolo_yaml
from kdp.errors import KdpError
from tests.data.box_helpers import (
    CLASSES,
    GOOD,
    HEIGHT,
    WIDTH,
    annotation,
    summary,
    voc,
    write_image,
    yolo,
)

BOX = [("dog", (2, 2, 9, 9))]


def resize(path: Path) -> None:
    write_image(path, (HEIGHT // 2, WIDTH // 2))


def turn(path: Path) -> None:
    write_image(path, (WIDTH, HEIGHT))


def turn_by_exif(path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.open(path).save(path, exif=exif)


def exchange(path: Path) -> None:
    write_image(path, (HEIGHT, WIDTH + 1))


@pytest.mark.parametrize("change", [resize, turn, turn_by_exif, exchange])
def test_images_of_another_size_than_annotated_are_left_out(
    tmp_path: Path, messages: list[str], change: Callable[[Path], None]
) -> None:
    folder = voc(tmp_path, {"good": GOOD, "changed": GOOD})
    change(folder / "JPEGImages/changed.jpg")
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["good"]
    (line,) = messages
    assert line.endswith("images of another size than their annotation's, left out: 1 (changed)")


@pytest.mark.parametrize("size", ["", "0", "unknown", f"{WIDTH}.0"])
def test_a_size_that_says_nothing_else_is_accepted(tmp_path: Path, size: str) -> None:
    text = annotation(BOX).replace(f"<width>{WIDTH}</width>", f"<width>{size}</width>")
    assert len(voc_folder(voc(tmp_path, {"a": text}), "train", CLASSES)) == 1


@pytest.mark.parametrize("corners", [(0.1, 0.2, 0.5, 0.6), (0, 0, 1, 1), (0.01, 0.01, 0.99, 1.0)])
def test_boxes_in_fractions_are_left_out(
    tmp_path: Path, messages: list[str], corners: tuple[int, int, int, int]
) -> None:
    folder = voc(tmp_path, {"a": annotation([*BOX, ("cat", corners)])})
    (image,) = voc_folder(folder, "train", CLASSES)
    assert image.boxes.tolist() == [[1, 1, 9, 9]]
    (line,) = messages
    assert line.endswith("boxes in fractions of the image, left out: 1 (a)")


@pytest.mark.parametrize("twin", ["a.png", "a.JPG", "a.jpeg"])
def test_images_of_one_name_are_left_out(tmp_path: Path, messages: list[str], twin: str) -> None:
    folder = voc(tmp_path / "voc", {"a": GOOD, "b": GOOD})
    write_image(folder / "JPEGImages/x.png").rename(folder / "JPEGImages" / twin)
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["b"]
    assert messages[-1].endswith("names of several images, left out: 1 (a)")
    file = yolo(tmp_path / "yolo")
    write_image(tmp_path / "yolo/images/train/x.png").rename(tmp_path / "yolo/images/train" / twin)
    assert set(summary(yolo_yaml(file, "train", CLASSES))) == {"b", "c"}
    assert "images that share a label file, left out: 2" in messages[-1]


def test_an_image_listed_twice_shares_no_label_file(tmp_path: Path) -> None:
    file = yolo(tmp_path, train=["images/train", "images/train"])
    assert summary(yolo_yaml(file, "train", CLASSES)).keys() == {"a", "b", "c"}


def lead_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone.txt")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        make_folder,
        lead_nowhere,
        lambda path: path.write_bytes(bytes(range(256))),
        lambda path: path.write_text("<annotation>\n<object>\n"),
        lambda path: path.write_text("0 0.5 0.5 0.5 0.25\n", "utf-16"),
    ],
    ids=["folder", "link", "binary", "other format", "UTF-16"],
)
def test_an_image_without_a_readable_label_is_no_background(
    tmp_path: Path, messages: list[str], spoil: Callable[[Path], object]
) -> None:
    file = yolo(tmp_path)
    spoil(tmp_path / "labels/train/a.txt")
    assert set(summary(yolo_yaml(file, "train", CLASSES))) == {"b", "c"}
    kind = "images whose label file cannot be read, left out: 1 (images/train/a.jpg)"
    assert kind in messages[0]


def test_images_without_a_label_file_are_counted(tmp_path: Path, messages: list[str]) -> None:
    file = yolo(tmp_path)
    assert summary(yolo_yaml(file, "train", CLASSES))["c"] == []
    (line,) = messages
    assert line.endswith("images without a label file, taken as background: 1 (images/train/c.jpg)")
    (tmp_path / "labels/train/c.txt").touch()  # empty: there is no object
    messages.clear()
    assert summary(yolo_yaml(file, "train", CLASSES))["c"] == []
    assert not messages


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_images_without_their_end_are_left_out(
    tmp_path: Path, messages: list[str], name: str
) -> None:
    file = yolo(tmp_path)
    path = tmp_path / f"images/train/{name}.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    assert name not in summary(yolo_yaml(file, "train", CLASSES))
    assert f"corrupt images, left out: 1 (images/train/{name}.jpg)" in messages[0]
    folder = voc(tmp_path / "voc", {"whole": GOOD, "cut": GOOD})
    image = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 9, np.uint8))[1].tobytes()
    (folder / "JPEGImages/cut.jpg").write_bytes(image[: len(image) // 2])
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["whole"]


def test_a_data_set_of_which_nothing_is_left_is_refused(
    tmp_path: Path, messages: list[str]
) -> None:
    folder = voc(tmp_path, {"a": GOOD})
    turn(folder / "JPEGImages/a.jpg")
    with pytest.raises(KdpError, match="no usable object"):
        voc_folder(folder, "train", CLASSES)
    assert "another size" in messages[0]


ONE = "<object><name>dog</name><bndbox>{}</bndbox></object>".format(
    "".join(f"<{side}>{value}</{side}>" for side, value in zip(CORNERS, (2, 2, 9, 9), strict=True))
)


@pytest.mark.parametrize(
    "text",
    [
        f'<annotation xmlns="http://example.org/voc">{ONE}</annotation>',
        f"<root><annotation>{ONE}</annotation></root>",
        f"<Annotation>{ONE}</Annotation>",
        "<html><body>404</body></html>",
    ],
)
def test_xml_that_is_no_annotation_of_voc_is_not_background(
    tmp_path: Path, messages: list[str], text: str
) -> None:
    folder = voc(tmp_path, {"good": GOOD, "foreign": text})
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["good"]
    (line,) = messages
    assert line.endswith("images with an annotation that is not VOC's, left out: 1 (foreign)")


@pytest.mark.parametrize("size", [(0, WIDTH + 1), (HEIGHT + 1, 0), (-1, WIDTH - 1)])
def test_the_known_side_of_an_annotation_is_compared(
    tmp_path: Path, messages: list[str], size: tuple[int, int]
) -> None:
    folder = voc(tmp_path, {"good": GOOD, "changed": annotation(BOX, size)})
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["good"]
    assert "another size than their annotation's, left out: 1 (changed)" in messages[0]


@pytest.mark.parametrize("mark", ["1", " 1\n", "true", "True", "1.0"])
def test_difficult_objects_are_left_out_however_they_are_marked(tmp_path: Path, mark: str) -> None:
    hard = ONE.replace("<bndbox>", f"<difficult>{mark}</difficult><bndbox>")
    text = f"<annotation>{hard}{ONE.replace('dog', 'cat')}</annotation>"
    (image,) = voc_folder(voc(tmp_path, {"a": text}), "train", CLASSES)
    assert image.labels.tolist() == [0]


@pytest.mark.parametrize(
    "lines",
    ["a\nb\n", "\ufeffa\nb\n", "a.jpg\r\nb.JPG\r\n", "JPEGImages/a.jpg\n\n b ", "a\nb\na\n"],
)
def test_lists_of_other_tools_name_each_image_once(
    tmp_path: Path, messages: list[str], lines: str
) -> None:
    folder = voc(tmp_path, {"a": GOOD, "b": GOOD})
    (folder / "ImageSets/Main/train.txt").write_text(lines)
    assert [image.name for image in voc_folder(folder, "train", CLASSES)] == ["a", "b"]
    repeated = [f"{folder}, train: images that are listed again, left out: 1 (a)"]
    assert messages == (repeated if lines.count("a\n") == 2 else [])


@pytest.mark.parametrize("lines", ["a  1\nb -1\n", "a -1\nb  0\n", "a 1\n"])
def test_the_list_of_one_class_is_no_split(tmp_path: Path, lines: str) -> None:
    folder = voc(tmp_path, {"a": GOOD, "b": GOOD})
    (folder / "ImageSets/Main/cat_train.txt").write_text(lines)
    with pytest.raises(KdpError, match=r"cat_train\.txt is the list of one class"):
        voc_folder(folder, "cat_train", CLASSES)


@pytest.mark.parametrize(
    ("train", "lines", "repeated"),
    [
        ("list.txt", "images/train/a.jpg\n./images/train/a.jpg\nimages/train/b.jpg\n", "a"),
        (["images/train", "list.txt"], "images/train/b.jpg\n", "b"),
        (["images/train", "images/train"], "", "a"),
        ("list.txt", "\ufeffimages/train/a.jpg\nimages/train/b.jpg\n", ""),
    ],
)
def test_lists_of_yolo_name_each_image_once(
    tmp_path: Path, messages: list[str], train: str | list[str], lines: str, repeated: str
) -> None:
    file = yolo(tmp_path, train=train)
    (tmp_path / "list.txt").write_text(lines)
    names = [image.name for image in yolo_yaml(file, "train", CLASSES)]
    assert len(names) == len(set(names)) >= 2
    text = f"images that are listed again, left out: {3 if train == ['images/train'] * 2 else 1}"
    found = [line for line in messages if text in line and f"images/train/{repeated}.jpg" in line]
    assert len(found) == bool(repeated)
