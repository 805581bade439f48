"""Class folders, resizing and samples of image classification."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest
import torch

from kdp.data.folders import class_folders, toy_faces
from kdp.data.images import read_rgb
from kdp.data.labelled import LabelledDataset, resized
from kdp.errors import KdpError
from kdp.models.mask_classifier import CLASSES


def write_images(folder: Path) -> None:
    for name, level in (("with_mask", 40), ("without_mask", 200)):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            image = np.full((20, 24, 3), level + number, np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), image)


def test_a_folder_of_images_for_each_class(tmp_path: Path, messages: list[str]) -> None:
    write_images(tmp_path)
    (tmp_path / "without_mask" / "1.png").write_bytes(b"no image")
    images = class_folders(tmp_path, ("with_mask", "without_mask"))
    assert [image.label for image in images] == [0, 0, 0, 1, 1]
    assert len(class_folders(tmp_path, CLASSES)) == 5
    (message,) = messages  # logged once, however often the folder is read
    assert message.endswith("1 corrupt images left out: without_mask/1.png")


def test_a_class_of_corrupt_images_is_named(tmp_path: Path) -> None:
    write_images(tmp_path)
    for path in (tmp_path / "without_mask").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(KdpError, match="no readable image of the class 'without_mask'"):
        class_folders(tmp_path, CLASSES)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("with_mask",), "'without_mask'; classes are with_mask$"),
        (("with_mask", "scarf", "without_mask"), "the image folder .*scarf does not exist"),
    ],
)
def test_folders_and_classes_must_agree(
    tmp_path: Path, classes: tuple[str, ...], message: str
) -> None:
    write_images(tmp_path)
    with pytest.raises(KdpError, match=message):
        class_folders(tmp_path, classes)


def test_samples_do_not_depend_on_the_order_of_access() -> None:
    def samples() -> LabelledDataset:
        return LabelledDataset(toy_faces(False), 16, seed=3, augment=True, length=400)

    first, second = samples(), samples()
    for number in (5, 170, 6):
        torch.testing.assert_close(first[number], second[number])
    epoch = [float(samples()[n]["image"].sum()) for n in range(4)]
    assert len(set(epoch)) == 4


def test_an_epoch_shows_every_image_once() -> None:
    images = toy_faces(False)
    data = LabelledDataset(images, 8, seed=0, augment=False, length=2 * len(images))
    for epoch in range(2):
        numbers = range(epoch * len(images), (epoch + 1) * len(images))
        assert sum(int(data[n]["label"]) for n in numbers) == len(images) // 2
    first = [data[n]["image"] for n in range(5)]
    second = [data[n + len(images)]["image"] for n in range(5)]
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_shrinking_averages_along_either_side() -> None:
    stripes = np.zeros((10, 4000, 3), np.uint8)
    stripes[:, ::2] = 200
    for image in (stripes, stripes.transpose(1, 0, 2)):
        assert np.unique(resized(image, 20)).tolist() == [100]
    plain = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert np.array_equal(resized(plain, 8), cv2.resize(plain, (8, 8)))
    assert np.array_equal(
        resized(plain, 2), cv2.resize(plain, (2, 2), interpolation=cv2.INTER_AREA)
    )


def png_header(side: int) -> bytes:
    """The header of a PNG of this width and height."""
    body = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", crc32(body))


def test_images_that_opencv_cannot_read_are_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge, deep = tmp_path / "huge.png", tmp_path / "deep.tiff"
    huge.write_bytes(png_header(60000))
    with pytest.raises(KdpError, match=r"huge\.png: it is missing or corrupt"):
        read_rgb(huge)
    cv2.imwrite(str(deep), np.ones((4, 5, 3), np.float32))
    with pytest.raises(KdpError, match=r"deep\.tiff: pixels of float32 are not supported"):
        read_rgb(deep)

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(KdpError, match=r"deep\.tiff: Input/output error"):
        read_rgb(deep)


@pytest.mark.parametrize("link", [False, True])
def test_an_image_of_two_classes_is_left_out(
    tmp_path: Path, messages: list[str], link: bool
) -> None:
    write_images(tmp_path)
    source, copy = tmp_path / "with_mask" / "0.png", tmp_path / "without_mask" / "x.png"
    if link:
        copy.symlink_to(source)
    else:
        copy.write_bytes(source.read_bytes())
    (tmp_path / "with_mask" / "z.png").write_bytes((tmp_path / "with_mask" / "1.png").read_bytes())
    names = [image.name for image in class_folders(tmp_path, CLASSES)]
    assert names == [f"with_mask/{name}.png" for name in "12z"] + [
        f"without_mask/{name}.png" for name in "012"
    ]
    (line,) = messages
    assert line.endswith("2 left out: with_mask/0.png, without_mask/x.png")


def test_a_class_that_shares_all_its_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path)
    for path in (tmp_path / "with_mask").iterdir():
        (tmp_path / "without_mask" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(KdpError, match="no readable image of the class 'with_mask'"):
        class_folders(tmp_path, CLASSES)
