"""Detection data sets in Ultralytics' layout, read without writing caches beside the files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kdp.data.boxes import (
    AnnotatedImage,
    DatasetIssues,
    Rows,
    require_objects,
    usable_boxes,
    without_repetitions,
)
from kdp.data.images import SUFFIXES, image_size, read_rgb
from kdp.errors import KdpError, suggest
from kdp.files import read_regular
from kdp.yaml_file import yaml_text

Line = tuple[float, float, float, float, float]
"""Class, x0, y0, x1, y1; coordinates relative to the sides of the image (0..1)."""
MAX_LIST_BYTES = 200_000_000
"""Of a list of images: a million long paths."""


def yolo_yaml(file: Path, split: str, classes: Sequence[str]) -> list[AnnotatedImage]:
    """The images of a split with the objects in their label files.

    A split is a folder, a .txt file that lists images, or a list of these, relative to `path` or
    else to the YAML file. The labels of `.../images/a.jpg` are in `.../labels/a.txt`, one line per
    object: its class, then either centre, width and height, or the corners of a polygon, which is
    reduced to its bounding box. All coordinates are relative to the image's sides. An image without
    a label file, or with an empty one, has no objects. `download` is ignored. Lines and images that
    cannot be used are left out: corrupt images, images that share a label file, and those whose
    label file cannot be read. One log line counts them, and the images without a label file.

    Args:
        file: the YAML file.
        split: `train`, `val` or `test`.
        classes: expected class names; must equal those of the file, order included.

    Raises:
        KdpError: the file cannot be used, its classes differ, the split or one of its images is
            missing, or there is no usable object.
    """
    content = _content(file)
    names = _names(content, file)
    if names != tuple(classes):
        raise KdpError(f"{file} has the classes {', '.join(names)}, not {', '.join(classes)}")
    roots = _roots(content, file)
    listed = [path for source in _sources(content, split, file) for path in _images(source, roots)]
    issues = DatasetIssues(f"{file}, {split}")
    paths = without_repetitions(listed, issues, lambda path: _name(path, roots))
    shared = _shared_labels(paths)
    images = []
    for path in paths:
        if path in shared:
            issues.add("images that share a label file, left out", _name(path, roots))
        elif image := _annotated(path, _name(path, roots), len(names), issues):
            images.append(image)
    issues.report()
    require_objects(images, f"{file}, {split},", classes)
    return images


def _content(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(yaml_text(file))
    except OSError as error:
        raise KdpError(f"cannot read the data set {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise KdpError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise KdpError(f"{file} describes no data set: it has no keys such as train and names")
    if "kpt_shape" in content:
        raise KdpError(f"{file} is a pose data set (kpt_shape); kdp reads boxes and polygons")
    return content


def _names(content: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, dict):
        # Keys may be integers or, from other exporters, strings.
        by_index = {str(index): name for index, name in names.items()}
        names = [by_index.get(str(index)) for index in range(len(names))]
    if not isinstance(names, list) or not names or None in names:
        raise KdpError(f"{file}: names must be a list of classes, or map 0, 1, 2 ... to them")
    return tuple(str(name) for name in names)


def _roots(content: dict[str, Any], file: Path) -> list[Path]:
    """Candidate folders that a split is relative to, in order of preference.

    Ultralytics takes a relative `path` from the current folder, many exporters from the file.
    """
    parent = file.absolute().parent
    if not content.get("path"):
        return [parent]
    path = Path(str(content["path"])).expanduser()
    roots = [root for root in (parent / path, path.absolute()) if root.is_dir()]
    if not roots:
        raise KdpError(
            f"{file}: there is no folder {path} (`path`) in {parent} or in the current folder"
        )
    return roots


def _sources(content: dict[str, Any], split: str, file: Path) -> list[str]:
    value = content.get(split) or (content.get("validation") if split == "val" else None)
    sources = [value] if isinstance(value, str) else value
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        known = [name for name in ("train", "val", "test") if content.get(name)]
        raise KdpError(
            f"{file} has no folder or list for the split {split!r}; {suggest(split, known)}"
        )
    return sources


def _images(source: str, roots: Sequence[Path]) -> list[Path]:
    """Image paths of a folder, recursively and sorted, or of a list file, in its order."""
    # Roboflow's exports write ../train/images for a folder beside the YAML file.
    spellings = (source, source.removeprefix("../"))
    candidates = [root / spelling for spelling in spellings for root in roots]
    location = next((path for path in candidates if path.exists()), None)
    if location is None:
        raise KdpError(f"the images {candidates[0]} do not exist")
    if location.is_dir():
        images = sorted(p for p in _files(location) if p.suffix.lower() in SUFFIXES)
    else:
        images = _listed(location, roots)
    if not images:
        raise KdpError(f"no images in {location} (looked for {', '.join(sorted(SUFFIXES))})")
    return images


def _files(folder: Path, within: tuple[tuple[int, int], ...] = ()) -> Iterator[Path]:
    """The files of a folder and of those inside it, by links too, which data sets use.

    Hidden ones are left out, and folders that lead back to one that holds them.
    """
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in within:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files(path, (*within, identity))
        else:
            yield path


def _listed(file: Path, roots: Sequence[Path]) -> list[Path]:
    if file.suffix.lower() != ".txt":
        raise KdpError(f"{file} is neither a folder nor a .txt list of images")
    try:
        text = read_regular(file, MAX_LIST_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise KdpError(f"cannot read the list of images {file}: {error.strerror}") from error
    images = []
    for line in filter(None, map(str.strip, text.splitlines())):
        candidates = [root / line for root in (file.parent, *roots)]
        image = next((path for path in candidates if path.is_file()), None)
        if image is None:
            raise KdpError(f"{file} lists {line}, which is not in {file.parent}")
        images.append(image)
    return images


def _name(path: Path, roots: Sequence[Path]) -> str:
    """The path relative to the first root that contains it, else the file name."""
    inside = (str(path.relative_to(root)) for root in roots if path.is_relative_to(root))
    return next(inside, path.name)


def _annotated(path: Path, name: str, classes: int, issues: DatasetIssues) -> AnnotatedImage | None:
    """The image with its objects, or None if it or its label file cannot be used."""
    lines = _lines(_label_file(path), name, classes, issues)
    if lines is None:
        issues.add("images whose label file cannot be read, left out", name)
        return None
    try:
        height, width = image_size(path)
    except KdpError:
        issues.add("corrupt images, left out", name)
        return None
    rows: Rows = np.array(lines, np.float64).reshape(-1, 5) * (1, width, height, width, height)
    boxes, labels = usable_boxes(rows, (height, width), name, issues)
    return AnnotatedImage(name, partial(read_rgb, path), boxes, labels, (path,))


def _label_file(image: Path) -> Path:
    """The last folder `images` of the path becomes `labels`; without one, a file beside it."""
    head, images, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    text = f"{head}{os.sep}labels{os.sep}{tail}" if images else tail
    return Path(text).with_suffix(".txt")


def _shared_labels(paths: Sequence[Path]) -> set[Path]:
    """Images of one name, such as `a.jpg` and `a.png`: their objects are those of one of them."""
    images: dict[Path, set[Path]] = defaultdict(set)
    for path in paths:
        images[_label_file(path)].add(path)
    return {path for group in images.values() if len(group) > 1 for path in group}


def _lines(file: Path, name: str, classes: int, issues: DatasetIssues) -> list[Line] | None:
    """The usable lines of a label file; None if it cannot be read, or no line has this form."""
    try:
        text = read_regular(file).decode("utf-8-sig", "replace")
    except FileNotFoundError:
        if file.is_symlink():  # to a file that is gone
            return None
        issues.add("images without a label file, taken as background", name)
        return []
    except OSError:
        return None
    malformed = 0
    lines = []
    for words in filter(None, map(str.split, text.splitlines())):
        line = _line(words)
        if line is None:
            issues.add("malformed lines, left out", name)
            malformed += 1
        elif not 0 <= line[0] < classes:
            issues.add("boxes of an unknown class, left out", f"{name} {words[0]}")
        else:
            lines.append(line)
    return None if malformed and not lines else lines


def _line(words: Sequence[str]) -> Line | None:
    """Corners of a box, or of the bounding box of a polygon; None if the line is neither."""
    try:
        label, *numbers = map(float, words)
    except ValueError:
        return None
    if not label.is_integer():
        return None
    if len(numbers) == 4:
        x, y, width, height = numbers
        return label, x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(numbers) < 6 or len(numbers) % 2:
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return label, min(xs), min(ys), max(xs), max(ys)
