"""Images with boxes in the layout of Ultralytics' data sets; nothing is written beside them."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kdp.data.boxes import (
    AnnotatedImage,
    DatasetIssues,
    Rows,
    checked,
    image_size,
    require_objects,
)
from kdp.data.images import SUFFIXES, read_rgb
from kdp.errors import KdpError, suggest

Line = tuple[float, float, float, float, float]
"""Class, x0, y0, x1, y1; of the sides of the image."""


def yolo_yaml(file: Path, split: str, classes: Sequence[str]) -> list[AnnotatedImage]:
    """The images of a split with the objects of their label files.

    A split is a folder, a .txt file that lists images, or a list of these, relative to `path` or
    else to the YAML file. The labels of `.../images/a.jpg` are in `.../labels/a.txt`, a line for
    each object: its class, and centre, width and height or the corners of a polygon, which becomes
    its bounding box; all of them relative to the image's sides. An image without a label file
    has no object. `download` is ignored. What is wrong is told in one line, and left out.

    Args:
        file: the YAML file.
        split: `train`, `val` or `test`.
        classes: must be the names that the file has, in its order.

    Raises:
        KdpError: the file cannot be used, its classes are others, the split or one of its images
            is missing, or no object can be used.
    """
    told = _told(file)
    names = _names(told, file)
    if names != tuple(classes):
        raise KdpError(f"{file} has the classes {', '.join(names)}, not {', '.join(classes)}")
    roots = _roots(told, file)
    images = [path for one in _sources(told, split, file) for path in _images(one, roots)]
    faults = DatasetIssues(f"{file}, {split}")
    read = (_boxed(path, _name(path, roots), len(names), faults) for path in images)
    found = [one for one in read if one is not None]
    faults.tell()
    require_objects(found, f"{file}, {split},", classes)
    return found


def _told(file: Path) -> dict[str, Any]:
    try:
        told = yaml.safe_load(file.read_text("utf-8", "replace"))
    except OSError as error:
        raise KdpError(f"cannot read the data set {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise KdpError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(told, dict):
        raise KdpError(f"{file} describes no data set: it has no keys such as train and names")
    if "kpt_shape" in told:
        raise KdpError(f"{file} is a data set of poses (kpt_shape); kdp reads boxes and polygons")
    return told


def _names(told: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = told.get("names")
    if isinstance(names, dict):
        numbers = {str(number): name for number, name in names.items()}
        names = [numbers.get(str(number)) for number in range(len(names))]
    if not isinstance(names, list) or not names or None in names:
        raise KdpError(f"{file}: names must list the classes, or give one for each of 0, 1, 2 ...")
    return tuple(str(name) for name in names)


def _roots(told: dict[str, Any], file: Path) -> list[Path]:
    """The folders that a split may be relative to; `path` may be relative itself."""
    here = file.absolute().parent
    if not told.get("path"):
        return [here]
    path = Path(str(told["path"])).expanduser()
    roots = [one for one in (here / path, path.absolute()) if one.is_dir()]
    if not roots:
        raise KdpError(f"{file}: there is no folder {path} (path), neither in {here} nor here")
    return roots


def _sources(told: dict[str, Any], split: str, file: Path) -> list[str]:
    given = told.get(split) or (told.get("validation") if split == "val" else None)
    sources = [given] if isinstance(given, str) else given
    if not isinstance(sources, list) or not all(isinstance(one, str) for one in sources):
        known = [one for one in ("train", "val", "test") if told.get(one)]
        raise KdpError(
            f"{file} has no folder or list for the split {split!r}; {suggest(split, known)}"
        )
    return sources


def _images(source: str, roots: Sequence[Path]) -> list[Path]:
    """Of a folder and all that is in it, by name; or of a list, in its order."""
    # Exports write ../train/images for a folder that is beside the YAML file.
    spellings = (source, source.removeprefix("../"))
    places = [root / one for one in spellings for root in roots]
    place = next((one for one in places if one.exists()), None)
    if place is None:
        raise KdpError(f"the images {places[0]} do not exist")
    if place.is_dir():
        inside = glob.glob(f"{glob.escape(str(place))}/**/*.*", recursive=True)
        found = sorted(Path(one) for one in inside if Path(one).suffix.lower() in SUFFIXES)
    else:
        found = _listed(place, roots)
    if not found:
        raise KdpError(f"no images in {place} (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def _listed(file: Path, roots: Sequence[Path]) -> list[Path]:
    if file.suffix.lower() != ".txt":
        raise KdpError(f"{file} is neither a folder nor a .txt list of images")
    found = []
    for line in filter(None, map(str.strip, file.read_text("utf-8", "replace").splitlines())):
        places = [root / line for root in (file.parent, *roots)]
        place = next((one for one in places if one.is_file()), None)
        if place is None:
            raise KdpError(f"{file} lists {line}, which is not in {file.parent}")
        found.append(place)
    return found


def _name(path: Path, roots: Sequence[Path]) -> str:
    """Relative to its root, where it is inside."""
    inside = (str(path.relative_to(root)) for root in roots if path.is_relative_to(root))
    return next(inside, path.name)


def _boxed(path: Path, name: str, classes: int, faults: DatasetIssues) -> AnnotatedImage | None:
    """The image with its objects; None where it is corrupt."""
    lines = _lines(_label_file(path), name, classes, faults)
    try:
        # An image of the background need not be opened.
        height, width = image_size(path) if lines else (1, 1)
    except KdpError:
        faults.add("corrupt images, left out", name)
        return None
    rows: Rows = np.array(lines, np.float64).reshape(-1, 5) * (1, width, height, width, height)
    return AnnotatedImage(
        name, partial(read_rgb, path), *checked(rows, (height, width), name, faults)
    )


def _label_file(image: Path) -> Path:
    """`labels` in place of the last `images`; without any, beside the image."""
    head, images, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    text = f"{head}{os.sep}labels{os.sep}{tail}" if images else tail
    return Path(text).with_suffix(".txt")


def _lines(file: Path, name: str, classes: int, faults: DatasetIssues) -> list[Line]:
    try:
        text = file.read_text("utf-8-sig", "replace")
    except FileNotFoundError:
        return []
    found = []
    for words in filter(None, map(str.split, text.splitlines())):
        line = _line(words)
        if line is None:
            faults.add("lines that are no box, left out", name)
        elif not 0 <= line[0] < classes:
            faults.add("boxes of an unknown class, left out", f"{name} {words[0]}")
        else:
            found.append(line)
    return found


def _line(words: Sequence[str]) -> Line | None:
    """A box, or the bounding box of a polygon; None where it is neither."""
    try:
        kind, *numbers = map(float, words)
    except ValueError:
        return None
    if not kind.is_integer():
        return None
    if len(numbers) == 4:
        x, y, width, height = numbers
        return kind, x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    across, down = numbers[::2], numbers[1::2]
    return kind, min(across), min(down), max(across), max(down)
