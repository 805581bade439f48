"""Labelled recordings in the layout of TAU Urban Acoustic Scenes 2022 Mobile.

A folder with `meta.csv` and one table per split, all tab-separated: the data of DCASE 2024 Task 1
(https://zenodo.org/records/6337421) and any other data set with the same columns. The splits may
lie in the folder itself, in `split_setup/`, where the baseline of the challenge puts them, or in
`evaluation_setup/`, where the data set has its own two.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from kdp.data.audio import RATE, Wave, duration, read_wave
from kdp.data.content import without_contradictions
from kdp.data.split import Split
from kdp.errors import KdpError, join_names, suggest
from kdp.log import log, log_once

TAU_VARIABLE = "TAU24_PATH"
META = "meta.csv"
SPLIT_FOLDERS = ("", "split_setup", "evaluation_setup")
SAME_SPLITS = {
    "split100.csv": ("fold1_train.csv",),
    "test.csv": ("fold1_evaluate.csv", "fold1_test.csv"),
}
"""Splits of the challenge -> the data set's own tables of the same recordings."""
SPLITS_PAGE = "github.com/CPJKU/dcase2024_task1_baseline/releases/tag/files"
CHALLENGE_SPLITS = ("split5.csv", "split10.csv", "split25.csv", "split50.csv", *SAME_SPLITS)
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
        split: such as "split25.csv" or "test.csv", with a column filename; looked up in
            `SPLIT_FOLDERS`.
        classes: class names; a label is an index into them.
        rate: sampling rate to resample to, in Hz.

    Raises:
        KdpError: the folder, `meta.csv`, the split, a column or every file is missing; a file is
            not in `meta.csv`, or has two labels; a label is not one of the classes.
    """
    labelled = read_table(_meta_path(folder), COLUMNS)
    meta = {row["filename"]: row for row in labelled}
    table = _split_path(folder, split)
    rows = read_table(table, ("filename",))
    names = list(dict.fromkeys(row["filename"] for row in rows))
    unknown = next((name for name in names if name not in meta), None)
    if unknown is not None:
        raise KdpError(f"{table} has {unknown}, which {folder / META} does not have")
    clips = [_clip(folder, meta[name], classes, rate) for name in names]
    _check_labels(table, [*labelled, *rows], meta)
    return without_contradictions(existing_clips(table, clips), str(table))


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


def _meta_path(folder: Path) -> Path:
    if not folder.is_dir():
        raise KdpError(f"the folder {folder} does not exist")
    path = folder / META
    if not path.is_file():
        raise KdpError(f"{folder} has no {META}, the table of recordings and their labels")
    return path


def _split_path(folder: Path, split: str) -> Path:
    for name in (split, *SAME_SPLITS.get(split, ())):
        for path in (folder / place / name for place in SPLIT_FOLDERS):
            if path.is_file():
                if name != split:
                    log_once(f"{path} is read as {split}, which {folder} does not have")
                return path
    tables = (path for place in SPLIT_FOLDERS for path in (folder / place).glob("*.csv"))
    splits = sorted(str(path.relative_to(folder)) for path in tables if path.name != META)
    hint = f"; {SPLITS_PAGE} has it" if split in CHALLENGE_SPLITS else ""
    raise KdpError(f"{folder} has no split {split}; available: {', '.join(splits) or 'none'}{hint}")


def read_table(path: Path, columns: Sequence[str], delimiter: str = "\t") -> list[Row]:
    """Rows of a text file, none of which is empty in one of the columns.

    Raises:
        KdpError: it cannot be read, a column is missing, or a cell of one is empty.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            rows, header = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        separated = "tab" if delimiter == "\t" else "comma"
        raise KdpError(f"cannot read {path} as a {separated}-separated table: {error}") from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise KdpError(f"{path} has no column {missing[0]!r}; it has: {', '.join(header)}")
    for number, row in enumerate(rows, 2):
        for column in columns:
            if not row[column]:
                raise KdpError(f"{path}, line {number}: {column} is empty")
    return rows


def _clip(folder: Path, row: Row, classes: Sequence[str], rate: int) -> Clip:
    name = row["filename"]
    label = class_index(folder / META, name, row["scene_label"], classes)
    # TAU names files scene-city-location-segment-device.
    device = row.get(DEVICE_COLUMN) or Path(name).stem.rsplit("-", 1)[-1]
    return file_clip(name, label, device, row["identifier"], folder / name, rate)


def class_index(table: Path, name: str, label: str, classes: Sequence[str]) -> int:
    """Index of the label that a table gives to a recording.

    Raises:
        KdpError: it is not one of the classes.
    """
    if label not in classes:
        raise KdpError(
            f"{table}: {name} has the label {label!r}, which is not a class; "
            f"{suggest(label, classes)}"
        )
    return list(classes).index(label)


def file_clip(name: str, label: int, device: str, place: str, path: Path, rate: int) -> Clip:
    """The recording in a file; see `Clip`."""
    read, seconds = partial(read_wave, path, rate), partial(duration, path)
    return Clip(name, label, device, place, read, seconds, (path,), rate)


def existing_clips(table: Path, clips: Sequence[Clip]) -> list[Clip]:
    """The clips whose files exist; the others are logged.

    Raises:
        KdpError: none exists.
    """
    existing = [clip for clip in clips if clip.files[0].is_file()]
    if not existing:
        raise KdpError(f"no file of {table} exists ({len(clips)} are listed)")
    if len(existing) < len(clips):
        names = {clip.name for clip in existing}
        missing = [clip.name for clip in clips if clip.name not in names]
        listing = join_names(missing, 5)
        log.info(f"{table}: {len(missing)} missing recordings left out: {listing}")
    return existing


def held_out(
    clips: Sequence[Clip], part: Literal["train", "val"], seed: int, val: float
) -> list[Clip]:
    """A part of a list of recordings: to train on, or to choose the best network by.

    Recordings of one place are in one part: the same place, heard in both, would flatter the
    networks that remember it.

    Args:
        clips: the list.
        part: to return.
        seed: another one gives another division.
        val: share of every class for `val`; at least one place.

    Raises:
        KdpError: a class has too few places.
    """
    return Split(seed, val, test=0).part(clips, part, group=lambda clip: clip.place)
