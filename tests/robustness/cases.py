"""Cases: one run of `kdp` on inputs that are made from a kind, a seed and a number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.robustness.client import Kdp, faults


@dataclass(frozen=True)
class Folders:
    """Folders of one case.

    Attributes:
        base: files of all cases, which none changes.
        work: the current folder of the run; its own.
        mark: a file that exists only if code of an input has run.
    """

    base: Path
    work: Path

    @property
    def mark(self) -> Path:
        return self.work.parent / "code_was_run"


Make = Callable[[Random, Folders], Sequence[str]]
"""Writes the inputs of a case and returns the arguments of `kdp`."""
Run = Callable[[Kdp, Random, Folders], tuple[Sequence[str], Sequence[str]]]
"""Runs a case; returns the arguments of `kdp` and the faults."""


def of_inputs(make: Make) -> Run:
    """Cases of one command each, on inputs that `make` writes."""

    def run(kdp: Kdp, random: Random, folders: Folders) -> tuple[Sequence[str], Sequence[str]]:
        command = make(random, folders)
        return command, faults(kdp.run(command, folders.work, environment(folders)))

    return run


@dataclass(frozen=True)
class Failure:
    """A case that went wrong.

    Attributes:
        name: `KIND SEED NUMBER`, the arguments of `python -m tests.robustness`.
        command: the arguments of kdp.
        faults: what went wrong.
        folder: the inputs, as the run left them.
    """

    name: str
    command: Sequence[str]
    faults: Sequence[str]
    folder: Path

    def __str__(self) -> str:
        return "\n    ".join(
            [f"{self.name}: kdp {' '.join(self.command)[:300]!r}", *self.faults, str(self.folder)]
        )


def run_cases(
    kdp: Kdp, kind: str, run: Run, base: Path, folder: Path, seed: int, numbers: Sequence[int]
) -> Iterator[Failure]:
    """Run cases one after another; inputs of those that fail are kept.

    Args:
        kdp: runs the commands.
        kind: the name of `run`.
        run: runs a case.
        base: see `Folders`.
        folder: where the cases get their folders.
        seed: of the series.
        numbers: of the cases in the series.
    """
    for number in numbers:
        place = folder / f"{kind}-{seed}-{number}"
        folders = Folders(base, place / "work")
        shutil.rmtree(place, ignore_errors=True)
        folders.work.mkdir(parents=True)
        command, found = run(kdp, Random(f"{kind} {seed} {number}"), folders)
        problems = list(found)
        strangers = {path.name for path in place.iterdir()} - {"work"}
        if folders.mark.name in strangers:
            problems.append("code of an input was run")
        elif strangers:
            problems.append(f"files outside of the folder: {', '.join(sorted(strangers))}")
        if problems:
            yield Failure(f"{kind} {seed} {number}", command, problems, folders.work)
        else:
            shutil.rmtree(place)


def environment(folders: Folders) -> Mapping[str, str]:
    """Variables of a run: its home and temporary files are in its folder."""
    return {"HOME": str(folders.work), "HF_HUB_OFFLINE": "1", "TMPDIR": str(folders.work)}
