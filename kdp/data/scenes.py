"""Labelled recordings in the layout of TAU Urban Acoustic Scenes 2022 Mobile.

A folder with `meta.csv` and one table per split, all tab-separated: the data of DCASE 2024 Task 1
(https://zenodo.org/records/6337421) and any other data set with the same columns.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kdp.data.audio import RATE, Wave, duration, read_wave
from kdp.data.content import without_contradictions
from kdp.errors import KdpError, join_names, suggest
from kdp.log import log

TAU_VARIABLE = "TAU24_PATH"
META = "meta.csv"
COLUMNS = ("filename", "scene_label", "identifier")
DEVICE_COLUMN = "source_label"

Row = dict[str, str]


@dataclass(frozen=True)
class Clip:
    """A recording, read on demand.

    Attributes:
        name: unique name of the recording.
        label: index of its class.
        device: recording device, such as "a" or "s1".
        place: recording location (TAU's identifier).
        read: returns (samples,) float32.
        seconds: returns the duration without decoding; None if only decoding gives it.
        files: that it is read from; none where it is generated.
        rate: sampling rate of what `read` returns, in Hz.
    """

    name: str
    label: int
    device: str
    place: str
    read: Callable[[], Wave]
    seconds: Callable[[], float] | None = None
    files: tuple[Path, ...] = ()
    rate: int = RATE

    @property
    def annotation(self) -> str:
        """Its class, for `kdp.data.content`."""
        return str(self.label)


def tau_folder(folder: Path | None) -> Path:
    """Folder of TAU: the configured one, else the environment variable TAU24_PATH.

    Raises:
        KdpError: neither is given.
    """
    if folder is not None:
        return folder
    path = os.environ.get(TAU_VARIABLE)
    if not path:
        raise KdpError(
            "the folder of TAU Urban Acoustic Scenes 2022 Mobile is not given: set `folder` in the "
            f"configuration or the environment variable {TAU_VARIABLE}"
        )
    return Path(path).expanduser()


def scene_folder(folder: Path, split: str, classes: Sequence[str], rate: int = RATE) -> list[Clip]:
    """The clips of a split, in its order.

    Missing files, and equal files with different labels, are left out with a log message. Files
    that are corrupt beyond their headers are found when they are read: decoding all of TAU to check
    it would take 8 minutes before every run.

    Args:
        folder: contains `meta.csv` (columns filename, scene_label, identifier and, unless file
            names end in the device, source_label) and the split; file names are relative to it.
        split: such as "split25.csv" or "test.csv", with a column filename.
        classes: class names; a label is an index into them.
        rate: sampling rate to resample to, in Hz.

    Raises:
        KdpError: the folder, `meta.csv`, the split, a column or every file is missing; a file is
            not in `meta.csv`, or has two labels; a label is not one of the classes.
    """
    labelled = _table(_table_path(folder, META), COLUMNS)
    meta = {row["filename"]: row for row in labelled}
    rows = _table(_table_path(folder, split), ("filename",))
    names = list(dict.fromkeys(row["filename"] for row in rows))
    unknown = next((name for name in names if name not in meta), None)
    if unknown is not None:
        raise KdpError(f"{folder / split} has {unknown}, which {folder / META} does not have")
    clips = [_clip(folder, meta[name], classes, rate) for name in names]
    _check_labels(folder / split, [*labelled, *rows], meta)
    return without_contradictions(_existing(folder, split, clips), str(folder / split))


def _check_labels(split: Path, rows: Sequence[Row], meta: Mapping[str, Row]) -> None:
    """Make sure that `meta.csv` and a split, which may repeat labels, agree on each of them.

    Raises:
        KdpError: a file has two labels.
    """
    for row in rows:
        label, other = row.get("scene_label"), meta[row["filename"]]["scene_label"]
        if label and label != other:
            name = row["filename"]
            raise KdpError(f"{split} and {META}: {name} has two labels, {label!r} and {other!r}")


def _table_path(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise KdpError(f"the folder {folder} does not exist")
    path = folder / name
    if not path.is_file():
        if name == META:
            raise KdpError(f"{folder} has no {META}, the table of recordings and their labels")
        splits = sorted(p.name for p in folder.glob("*.csv") if p.name != META)
        raise KdpError(f"{folder} has no split {name}; available: {', '.join(splits) or 'none'}")
    return path


def _table(path: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a tab-separated file, none of which is empty in one of the columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            rows, header = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise KdpError(f"cannot read {path} as a tab-separated table: {error}") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise KdpError(f"{path} has no column {missing[0]!r}; it has: {', '.join(header)}")
    for number, row in enumerate(rows, 2):
        for column in columns:
            if not row[column]:
                raise KdpError(f"{path}, line {number}: {column} is empty")
    return rows


def _clip(folder: Path, row: Row, classes: Sequence[str], rate: int) -> Clip:
    name, label = row["filename"], row["scene_label"]
    if label not in classes:
        raise KdpError(
            f"{folder / META}: {name} has the label {label!r}, which is not a class; "
            f"{suggest(label, classes)}"
        )
    # TAU names files scene-city-location-segment-device.
    device = row.get(DEVICE_COLUMN) or Path(name).stem.rsplit("-", 1)[-1]
    path = folder / name
    read, seconds = partial(read_wave, path, rate), partial(duration, path)
    place = row["identifier"]
    return Clip(name, classes.index(label), device, place, read, seconds, (path,), rate)


def _existing(folder: Path, split: str, clips: Sequence[Clip]) -> list[Clip]:
    existing = [clip for clip in clips if (folder / clip.name).is_file()]
    if not existing:
        raise KdpError(f"no file of {folder / split} exists ({len(clips)} are listed)")
    if len(existing) < len(clips):
        names = {clip.name for clip in existing}
        missing = [clip.name for clip in clips if clip.name not in names]
        listing = join_names(missing, 5)
        log.info(f"{folder / split}: {len(missing)} missing recordings left out: {listing}")
    return existing
