"""Labelled sounds in the layout of TAU Urban Acoustic Scenes 2022 Mobile.

A folder with `meta.csv` and splits, all tab-separated; the data of DCASE 2024 Task 1
(https://zenodo.org/records/6337421) and anything else with the same columns.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kdp.data.audio import Wave, duration, read_wave
from kdp.errors import KdpError, suggest
from kdp.log import log

TAU_VARIABLE = "TAU24_PATH"
META = "meta.csv"
COLUMNS = ("filename", "scene_label", "identifier")
DEVICE_COLUMN = "source_label"

Row = dict[str, str]


@dataclass(frozen=True)
class Clip:
    """A recording to be read when it is wanted.

    Attributes:
        name: of the recording; no other has it.
        label: index of its class.
        device: what recorded it, such as "a" or "s1".
        place: where it was recorded (TAU's identifier).
        read: gives (samples,) float32 at 32 kHz.
        seconds: gives how long it is without reading it all; None where only reading tells.
    """

    name: str
    label: int
    device: str
    place: str
    read: Callable[[], Wave]
    seconds: Callable[[], float] | None = None


def tau_folder(folder: Path | None) -> Path:
    """Where TAU is: the configured folder, or else what TAU24_PATH says now.

    Raises:
        KdpError: neither is given.
    """
    if folder is not None:
        return folder
    named = os.environ.get(TAU_VARIABLE)
    if not named:
        raise KdpError(
            "where is TAU Urban Acoustic Scenes 2022 Mobile? Give its folder in the configuration "
            f"(`folder`) or in the environment variable {TAU_VARIABLE}"
        )
    return Path(named).expanduser()


def scene_folder(folder: Path, split: str, classes: Sequence[str]) -> list[Clip]:
    """The clips of a split, in its order.

    Files that do not exist are named and left out. Corrupt ones are found when they are read:
    decoding all of TAU to look for them would take 8 minutes before every run.

    Args:
        folder: has `meta.csv` (filename, scene_label, identifier and, where the device is not the
            end of the file's name, source_label) and the split; file names are relative to it.
        split: such as "split25.csv" or "test.csv", with a column filename.
        classes: a label is an index into them.

    Raises:
        KdpError: the folder, `meta.csv`, the split, a column or every file is missing; a file is
            not in `meta.csv`; a label is none of the classes.
    """
    meta = {row["filename"]: row for row in _table(_listed(folder, META), COLUMNS)}
    rows = _table(_listed(folder, split), ("filename",))
    names = list(dict.fromkeys(row["filename"] for row in rows))
    unknown = next((name for name in names if name not in meta), None)
    if unknown is not None:
        raise KdpError(f"{folder / split} has {unknown}, which {folder / META} does not have")
    clips = [_clip(folder, meta[name], classes) for name in names]
    return _existing(folder, split, clips)


def _listed(folder: Path, name: str) -> Path:
    if not folder.is_dir():
        raise KdpError(f"the folder {folder} does not exist")
    path = folder / name
    if not path.is_file():
        if name == META:
            raise KdpError(f"{folder} has no {META}, the list of its sounds and their labels")
        there = sorted(p.name for p in folder.glob("*.csv") if p.name != META)
        raise KdpError(f"{folder} has no split {name}; available: {', '.join(there) or 'none'}")
    return path


def _table(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a tab-separated file; every one has something in each of the columns."""
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


def _clip(folder: Path, row: Row, classes: Sequence[str]) -> Clip:
    name, label = row["filename"], row["scene_label"]
    if label not in classes:
        raise KdpError(
            f"{folder / META}: {name} has the label {label!r}, which is no class; "
            f"{suggest(label, classes)}"
        )
    device = row.get(DEVICE_COLUMN) or Path(name).stem.rsplit("-", 1)[-1]
    path = folder / name
    read, seconds = partial(read_wave, path), partial(duration, path)
    return Clip(name, classes.index(label), device, row["identifier"], read, seconds)


def _existing(folder: Path, split: str, clips: Sequence[Clip]) -> list[Clip]:
    found = [clip for clip in clips if (folder / clip.name).is_file()]
    if not found:
        raise KdpError(f"no file of {folder / split} exists ({len(clips)} are listed)")
    if len(found) < len(clips):
        kept = {clip.name for clip in found}
        gone = [clip.name for clip in clips if clip.name not in kept]
        named = ", ".join(gone[:5]) + (" ..." if len(gone) > 5 else "")
        log.info(f"{folder / split}: {len(gone)} missing sounds left out: {named}")
    return found
