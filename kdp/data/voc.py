"""Images with boxes in the layout of PASCAL VOC."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from kdp.data.boxes import (
    AnnotatedImage,
    DatasetIssues,
    Rows,
    checked,
    image_size,
    require_objects,
)
from kdp.data.images import list_images, read_rgb
from kdp.errors import KdpError, suggest

SPLITS = Path("ImageSets/Main")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_folder(folder: Path, split: str, classes: Sequence[str]) -> list[AnnotatedImage]:
    """The images of `ImageSets/Main/<split>.txt` with the objects of `Annotations/*.xml`.

    VOC counts pixels from 1 and both ends of a box belong to it. Objects marked as difficult are
    left out, of every split, in silence. What is wrong with others is told in one line: boxes
    without area or outside the image, of unknown classes, and images whose annotation is
    missing or cannot be read, are left out.

    Args:
        folder: of VOC2012 or VOC2007, or a folder with just one of them inside (`VOCdevkit`).
        split: such as `train`, `val` or `trainval`.
        classes: the label of an object is its place here.

    Raises:
        KdpError: the folder, the split or one of its images is missing, no object can be used, or
            an annotation declares a document type (which could make a small file endless).
    """
    root = _root(folder)
    images = {path.stem: path for path in list_images(root / "JPEGImages")}
    names = _split(root, split)
    missing = [name for name in names if name not in images]
    if missing:
        raise KdpError(
            f"{root / 'JPEGImages'} lacks {len(missing)} of the {len(names)} images of "
            f"{split}.txt, such as {missing[0]}"
        )
    faults = DatasetIssues(f"{root}, {split}")
    labels = {name: label for label, name in enumerate(classes)}
    read = (_boxed(root, name, images[name], labels, faults) for name in names)
    found = [one for one in read if one is not None]
    faults.tell()
    require_objects(found, f"{root}, {split},", classes)
    return found


def _root(folder: Path) -> Path:
    """The folder itself, or the one VOC inside it."""
    if not folder.is_dir():
        raise KdpError(f"the folder {folder} does not exist")
    inner = [one for pattern in ("VOC*", "VOCdevkit/VOC*") for one in sorted(folder.glob(pattern))]
    roots = [one for one in (folder, *inner) if (one / SPLITS).is_dir()]
    if not roots:
        raise KdpError(f"{folder} is not in VOC's layout: it has no folder {SPLITS}")
    if len(roots) > 1 and roots[0] != folder:
        raise KdpError(f"{folder} has several data sets; choose {' or '.join(map(str, roots))}")
    for part in ("Annotations", "JPEGImages"):
        if not (roots[0] / part).is_dir():
            raise KdpError(f"{roots[0]} is not in VOC's layout: it has no folder {part}")
    return roots[0]


def _split(root: Path, split: str) -> list[str]:
    file = root / SPLITS / f"{split}.txt"
    if not file.is_file():
        known = sorted(path.stem for path in (root / SPLITS).glob("*.txt"))
        raise KdpError(f"{root} has no split {split!r} in {SPLITS}; {suggest(split, known)}")
    names = [line.strip() for line in file.read_text("utf-8", "replace").splitlines()]
    if not any(names):
        raise KdpError(f"{file} names no image")
    return [name for name in names if name]


def _boxed(
    root: Path, name: str, image: Path, labels: dict[str, int], faults: DatasetIssues
) -> AnnotatedImage | None:
    """The image with its objects; None where the annotation is of no use."""
    tree = _tree(root / "Annotations" / f"{name}.xml", name, faults)
    size = None if tree is None else _size(tree, image, name, faults)
    if tree is None or size is None:
        return None
    rows = _rows(tree, name, labels, faults)
    return AnnotatedImage(
        name, partial(read_rgb, image), *checked(rows, size, name, faults, least=1.0)
    )


def _tree(path: Path, name: str, faults: DatasetIssues) -> ElementTree.Element | None:
    try:
        data = path.read_bytes()
    except OSError:
        faults.add("images without annotation, left out", name)
        return None
    # Entities are declared nowhere else; zeros separate the letters of UTF-16.
    if b"<!DOCTYPE" in data.replace(b"\0", b""):
        raise KdpError(f"{path} declares a document type, which annotations have no use for")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError):
        faults.add("images with an annotation that is not XML, left out", name)
        return None


def _size(
    tree: ElementTree.Element, image: Path, name: str, faults: DatasetIssues
) -> tuple[int, int] | None:
    """Height and width: of the annotation, or of the image where it has none."""
    try:
        height, width = (int(tree.findtext(f"size/{side}", "")) for side in ("height", "width"))
        if height > 0 and width > 0:
            return height, width
    except ValueError:
        pass
    try:
        return image_size(image)
    except KdpError:
        faults.add("corrupt images, left out", name)
        return None


def _rows(
    tree: ElementTree.Element, name: str, labels: dict[str, int], faults: DatasetIssues
) -> Rows:
    rows = []
    for thing in tree.findall("object"):
        if thing.findtext("difficult", "0").strip() == "1":
            continue
        kind = thing.findtext("name", "").strip()
        if kind not in labels:
            faults.add("boxes of an unknown class, left out", f"{name} {kind!r}")
            continue
        try:
            x0, y0, x1, y1 = (float(thing.findtext(f"bndbox/{side}", "")) for side in CORNERS)
        except ValueError:
            faults.add("boxes without numbers, left out", name)
            continue
        rows.append((labels[kind], x0 - 1, y0 - 1, x1, y1))
    return np.array(rows, np.float64).reshape(-1, 5)
