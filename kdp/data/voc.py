"""Detection data sets in the layout of PASCAL VOC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from kdp.data.boxes import (
    AnnotatedImage,
    DatasetIssues,
    Rows,
    require_objects,
    usable_boxes,
    without_repetitions,
)
from kdp.data.images import SUFFIXES, image_size, list_images, read_rgb
from kdp.errors import KdpError, suggest
from kdp.files import read_regular

SPLITS = Path("ImageSets/Main")
ALL = "all"
"""The split of all images of a folder; VOC itself has no list of them."""
CLASS_FLAGS = (["-1"], ["0"], ["1"])
"""What follows a name in the lists of one class, such as `cat_train.txt`."""
DIFFICULT = ("1", "1.0", "true")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def voc_folder(folder: Path, split: str, classes: Sequence[str]) -> list[AnnotatedImage]:
    """The images of `ImageSets/Main/<split>.txt` with the objects of `Annotations/*.xml`.

    VOC counts pixels from 1 and includes both ends of a box. Objects marked as difficult are left
    out of every split, as VOC's own evaluation does. Boxes without area, outside the image, in
    fractions of it or of unknown classes are left out too, and images that are corrupt, listed
    before, share a name, or whose annotation is missing, malformed or of another size than the
    image, which is then resized, turned or another one. One log line counts them.

    Args:
        folder: VOC2012 or VOC2007, or a folder that contains exactly one of them (`VOCdevkit`).
        split: such as `train`, `val` or `trainval`; `all` is every image of `JPEGImages`, unless a
            list of this name says otherwise.
        classes: an object's label is the index of its class here.

    Raises:
        KdpError: the folder, the split or one of its images is missing, there is no usable object,
            or an annotation declares a document type.
    """
    root = _root(folder)
    images = defaultdict(list)
    for path in list_images(root / "JPEGImages"):
        images[path.stem].append(path)
    issues = DatasetIssues(f"{root}, {split}")
    names = without_repetitions(_split(root, split, images), issues)
    missing = [name for name in names if name not in images]
    if missing:
        raise KdpError(
            f"{root / 'JPEGImages'} lacks {len(missing)} of the {len(names)} images of "
            f"{split}.txt, such as {missing[0]}"
        )
    labels = {name: label for label, name in enumerate(classes)}
    read = (_annotated(root, name, images[name], labels, issues) for name in names)
    annotated = [image for image in read if image is not None]
    issues.report()
    require_objects(annotated, f"{root}, {split},", classes)
    return annotated


def _root(folder: Path) -> Path:
    """The folder itself, or the only VOC data set inside it."""
    if not folder.is_dir():
        raise KdpError(f"the folder {folder} does not exist")
    patterns = ("VOC*", "VOCdevkit/VOC*")
    inner = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    roots = [path for path in (folder, *inner) if (path / SPLITS).is_dir()]
    if not roots:
        raise KdpError(f"{folder} is not in VOC's layout: it has no folder {SPLITS}")
    if len(roots) > 1 and roots[0] != folder:
        raise KdpError(f"{folder} has several data sets; choose {' or '.join(map(str, roots))}")
    for part in ("Annotations", "JPEGImages"):
        if not (roots[0] / part).is_dir():
            raise KdpError(f"{roots[0]} is not in VOC's layout: it has no folder {part}")
    return roots[0]


def _split(root: Path, split: str, images: Iterable[str]) -> list[str]:
    file = root / SPLITS / f"{split}.txt"
    if split == ALL and not file.is_file():
        return sorted(images)
    if not file.is_file():
        known = sorted([ALL, *(path.stem for path in (root / SPLITS).glob("*.txt"))])
        raise KdpError(f"{root} has no split {split!r} in {SPLITS}; {suggest(split, known)}")
    lines = [line.strip() for line in file.read_text("utf-8-sig", "replace").splitlines()]
    if any(line.split()[1:] in CLASS_FLAGS for line in lines):
        raise KdpError(
            f"{file} is the list of one class, with -1, 0 or 1 after each name; choose a split of "
            "all classes, such as train, val or test"
        )
    names = [_stem(line) for line in lines if line]
    if not names:
        raise KdpError(f"{file} lists no image")
    return names


def _stem(name: str) -> str:
    """A name without its suffix: some tools list files."""
    path = Path(name)
    return path.stem if path.suffix.lower() in SUFFIXES else name


def _annotated(
    root: Path, name: str, images: Sequence[Path], labels: dict[str, int], issues: DatasetIssues
) -> AnnotatedImage | None:
    """The image with its objects, or None if it or its annotation cannot be used."""
    if len(images) > 1:
        issues.add("names of several images, left out", name)
        return None
    tree, image = _tree(root / "Annotations" / f"{name}.xml", name, issues), images[0]
    size = None if tree is None else _size(tree, image, name, issues)
    if tree is None or size is None:
        return None
    rows = _rows(tree, name, labels, issues)
    boxes, indices = usable_boxes(rows, size, name, issues, min_side=1.0)
    return AnnotatedImage(name, partial(read_rgb, image), boxes, indices, (image,))


def _tree(path: Path, name: str, issues: DatasetIssues) -> ElementTree.Element | None:
    try:
        data = read_regular(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and not path.is_symlink()
        kind = "images without annotation" if missing else "images whose annotation cannot be read"
        issues.add(f"{kind}, left out", name)
        return None
    # Entities can only be declared in a document type; nested ones expand a small file beyond any
    # memory ("billion laughs"). Dropping zero bytes finds the declaration in UTF-16 as well.
    if b"<!DOCTYPE" in data.replace(b"\0", b""):
        raise KdpError(f"{path} declares a document type, which VOC annotations never need")
    try:
        tree = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError):
        issues.add("images with an annotation that is not XML, left out", name)
        return None
    if tree.tag != "annotation":  # no object would be found, as in an image of background
        issues.add("images with an annotation that is not VOC's, left out", name)
        return None
    return tree


def _size(
    tree: ElementTree.Element, image: Path, name: str, issues: DatasetIssues
) -> tuple[int, int] | None:
    """Height and width of the image; None if it is corrupt or the annotation says otherwise."""
    try:
        size = image_size(image)
    except KdpError:
        issues.add("corrupt images, left out", name)
        return None
    try:
        annotated = [float(tree.findtext(f"size/{side}", "")) for side in ("height", "width")]
    except ValueError:
        return size
    sides = zip(annotated, size, strict=True)
    # Many tools write 0 for unknown.
    if any(declared > 0 and declared != side for declared, side in sides):
        issues.add("images of another size than their annotation's, left out", name)
        return None
    return size


def _rows(
    tree: ElementTree.Element, name: str, labels: dict[str, int], issues: DatasetIssues
) -> Rows:
    rows = []
    for element in tree.findall("object"):
        if element.findtext("difficult", "0").strip().lower() in DIFFICULT:
            continue
        class_name = element.findtext("name", "").strip()
        if class_name not in labels:
            issues.add("boxes of an unknown class, left out", f"{name} {class_name!r}")
            continue
        try:
            x0, y0, x1, y1 = (float(element.findtext(f"bndbox/{side}", "")) for side in CORNERS)
        except ValueError:
            issues.add("boxes without numbers, left out", name)
            continue
        if max(x0, y0, x1, y1) <= 1:
            issues.add("boxes in fractions of the image, left out", name)
            continue
        # From 1-based inclusive pixels to 0-based half-open ones: only the lower corner moves.
        rows.append((labels[class_name], x0 - 1, y0 - 1, x1, y1))
    return np.array(rows, np.float64).reshape(-1, 5)
