"""Small data sets of images with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from kdp.data.boxes import AnnotatedImage

CLASSES = ("cat", "dog")
WIDTH, HEIGHT = 60, 40
Thing = tuple[str, tuple[int, int, int, int]] | tuple[str, tuple[int, int, int, int], int]


def write_image(path: Path, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8))
    return path


def annotation(things: Sequence[Thing], size: tuple[int, int] | None = (HEIGHT, WIDTH)) -> str:
    size_tags = "" if size is None else f"<height>{size[0]}</height><width>{size[1]}</width>"
    objects = []
    for kind, corners, *difficult in things:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
        hard = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        objects.append(f"<object><name>{kind}</name>{hard}<bndbox>{box}</bndbox></object>")
    return f"<annotation><size>{size_tags}</size>{''.join(objects)}</annotation>"


def voc(root: Path, annotations: dict[str, str | None], split: str = "train") -> Path:
    """A VOC folder; an image whose annotation is None has none."""
    for part in ("Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for name, text in annotations.items():
        write_image(root / "JPEGImages" / f"{name}.jpg")
        if text is not None:
            (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(annotations) + "\n")
    return root


GOOD = annotation([("dog", (11, 6, 30, 25)), ("cat", (1, 1, WIDTH, HEIGHT))])


def yolo(root: Path, **keys: Any) -> Path:
    """A data set of three images: two boxes, a polygon, background."""
    for name in ("a", "b", "c"):
        write_image(root / f"images/train/{name}.jpg")
    labels = root / "labels/train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0.5 0.5 0.5 0.25\n\n0 0.25 0.5 0.5 1\n")
    (labels / "b.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.6\n")
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "names": list(CLASSES), **keys}))
    return file


def summary(images: Sequence[AnnotatedImage]) -> dict[str, list[list[float]]]:
    return {
        Path(image.name).stem: np.column_stack([image.labels, image.boxes]).round(3).tolist()
        for image in images
    }
