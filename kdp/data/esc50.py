"""ESC-50 and its subset ESC-10, in the folder of their repository.

The repository (https://github.com/karolpiczak/ESC-50) has `meta/esc50.csv` and five-second sounds
in `audio/`. Its five folds are made so that all clips cut from one source are in one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from kdp.data.audio import RATE
from kdp.data.content import without_contradictions
from kdp.data.scenes import (
    Clip,
    Row,
    class_index,
    existing_clips,
    file_clip,
    held_out,
    read_table,
)
from kdp.errors import KdpError

META = Path("meta", "esc50.csv")
COLUMNS = ("filename", "fold", "category", "esc10", "src_file")
FOLDS = (1, 2, 3, 4, 5)
DEVICE = "unknown"
"""The sounds were taken from Freesound, and nobody noted what they were recorded with."""


def esc50_folder(
    folder: Path,
    classes: Sequence[str],
    part: Literal["train", "val", "test"],
    test_folds: Collection[int],
    esc10: bool = False,
    seed: int = 0,
    val: float = 0.1,
    rate: int = RATE,
) -> list[Clip]:
    """The recordings of one part, in the order of `meta/esc50.csv`.

    Args:
        folder: of the repository.
        classes: class names; a label is an index into them.
        part: `test` are the test folds; `val` is held out of the other folds by the source of the
            sounds, and `train` is the rest.
        test_folds: numbers of the folds to test on.
        esc10: take the ten classes of ESC-10 alone.
        seed, val: see `held_out`.
        rate: sampling rate to resample to, in Hz.

    Raises:
        KdpError: the folder or its table is missing or not that of ESC-50, a label is not one of
            the classes, or the part is empty.
    """
    table = folder / META
    if not table.is_file():
        raise KdpError(f"{folder} has no {META}: it is not the folder of ESC-50's repository")
    rows = read_table(table, COLUMNS, delimiter=",")
    wanted = [row for row in rows if _wanted(table, row, part == "test", test_folds, esc10)]
    if not wanted:
        raise KdpError(f"{table} has no recording for {part} with test_folds {sorted(test_folds)}")
    clips = [_clip(folder, row, classes, rate) for row in wanted]
    clips = without_contradictions(existing_clips(table, clips), str(table))
    return clips if part == "test" else held_out(clips, part, seed, val)


def _wanted(table: Path, row: Row, test: bool, test_folds: Collection[int], esc10: bool) -> bool:
    if row["fold"] not in map(str, FOLDS):
        raise KdpError(
            f"{table}: {row['filename']} is in the fold {row['fold']!r}, not one of 1 to 5"
        )
    if esc10 and row["esc10"].lower() != "true":
        return False
    return (int(row["fold"]) in test_folds) == test


def _clip(folder: Path, row: Row, classes: Sequence[str], rate: int) -> Clip:
    name = row["filename"]
    label = class_index(folder / META, name, row["category"], classes)
    return file_clip(name, label, DEVICE, row["src_file"], folder / "audio" / name, rate)
