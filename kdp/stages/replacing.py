"""What a stage may replace, checked before its first step.

Without `--overwrite` no stage replaces what git tracks, a weight that kdp ships, or a file that kdp
did not write. A training also keeps what it could not make again: an artifact of other settings or
of more steps, and the checkpoint of an unfinished run. Every process of a run makes the same checks
on the same files before any of them writes, so all of them stop together.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdp.artifacts import load
from kdp.data.content import fingerprint
from kdp.errors import KdpError, join_names
from kdp.files import check_regular, real_path, sha256
from kdp.log import log
from kdp.shipped import shipped_weight
from kdp.stages.settings import TASK_REDUCTION, Settings, difference, training_settings
from kdp.stages.train.request import TrainingRequest
from kdp.training.checkpoint import Checkpoint, file_state
from kdp.training.job import TrainingJob
from kdp.training.processes import is_main_process
from kdp.types import Parent, Provenance
from kdp.written import is_written_by_kdp

ELSEWHERE = "choose another output.dir or output.name, or replace it with --overwrite"
CHANGED = "kdp did not write it, or it was changed since"
OTHER_OUTPUT = "choose another --output, or replace it with --overwrite"
TABLES = ("compare.md", "compare.csv", "compare.json")
COMPLEXITY = "complexity.json"
RUN_FILES = ("checkpoint.pth", "curves.jsonl", "curves.csv", "curves.png", COMPLEXITY)
LOG_CONTENT = {
    "curves.jsonl": b'"step": ',
    "curves.csv": b"step",
    "curves.png": b"Matplotlib",
    "compare.md": b"|  | 1: ",
    "compare.csv": b"measure,unit,",
    "compare.json": b'"columns": ',
    "rounds.json": b'"key": ',
    COMPLEXITY: b'"unpruned_parameters": ',
    "table.json": b'"round": ',
}
"""What the beginning of a log has where kdp wrote it: logs hold no record."""
BEGINNING = 4096
"""Bytes of a log that are looked at."""
RERUN = "--rerun"
"""The option of Make: resume a checkpoint that fits, replace what an earlier rerun made."""


def check_targets(
    paths: Sequence[Path], overwrite: bool = False, elsewhere: str = ELSEWHERE
) -> None:
    """Make sure that a stage may write some files.

    Args:
        paths: the files; links are followed, and a device or a pipe is always written through.
        overwrite: replace whatever is there.
        elsewhere: what to do instead, for the message.

    Raises:
        KdpError: one is there and protected, or it is a folder.
    """
    folder = next((path for path in paths if path.is_dir()), None)
    if folder:
        raise KdpError(f"{folder} is a folder; name a file")
    circle = next((path for path in paths if real_path(path).is_symlink()), None)
    if circle:
        raise KdpError(f"{circle} is a link in a circle; name a file")
    existing = {path: real_path(path) for path in paths if path.is_file()}
    if overwrite or not existing:
        return
    tracked = tracked_by_git(list(existing.values()))
    for path, file in existing.items():
        reason = "git tracks it" if file in tracked else protection(file)
        if reason:
            raise KdpError(f"{path} would be replaced, and {reason}: {elsewhere}")


def log_replaced(paths: Sequence[Path], earlier: str = "") -> None:
    """Say which files a stage is about to replace; nothing where none of them is there.

    Args:
        paths: that were checked.
        earlier: how they were made, in words that follow a comma.
    """
    existing = [str(path) for path in paths if path.is_file()]
    if existing:
        log.info(f"Replacing {join_names(existing, 3)}{earlier and ', ' + earlier}")


def earlier_record(path: Path) -> Provenance | None:
    """The record of a file that is about to be replaced; None where there is none to read."""
    with suppress(KdpError):
        return load(path).record
    return None


def tracked_by_git(paths: Sequence[Path]) -> set[Path]:
    """Those of some files that belong to a git repository; none where there is no git."""
    by_folder = defaultdict(list)
    for path in paths:
        by_folder[real_path(path.parent)].append(path)
    tracked: set[Path] = set()
    for folder, members in by_folder.items():
        names = _git_files(folder, [path.name for path in members])
        tracked |= {path for path in members if path.name in names}
    return tracked


@dataclass(frozen=True)
class TrainingTargets:
    """What a training is about to replace.

    Attributes:
        request: of the stage.
        files: what it writes at its end; the first is compared with this run.
        parents: files it starts from; a run resumes only with the same ones.
        sources: those of them that the settings do not decide: the teachers, and for `train` the
            weights it starts from.
        samples: to train on; a run resumes only with the same ones.
    """

    request: TrainingRequest
    files: Sequence[Path]
    parents: Sequence[Parent]
    sources: Sequence[Parent]
    samples: Sequence[Any] = ()

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Of this run, with the files as they are now."""
        return Checkpoint(
            self.request.folder / "checkpoint.pth",
            _signature(self.request, self.parents, self.samples),
            {str(path): file_state(path) for path in self.files},
        )

    def check(self, resume: bool, overwrite: bool, rerun: bool) -> bool:
        """Decide whether the run resumes, and make sure that it may write its files.

        Args:
            resume: continue from the checkpoint; unchanged files are replaced without `overwrite`.
            overwrite: replace whatever is there.
            rerun: resume if the checkpoint fits, replace what an earlier rerun made.

        Raises:
            KdpError: a file is protected, or there is no checkpoint that fits.
        """
        if rerun and not overwrite:
            resume = resume or self.checkpoint.fits(self._steps)
        if overwrite:
            return resume
        files = self.checkpoint.changed_targets(self.files) if resume else list(self.files)
        check_targets([*files, *(self.request.folder / name for name in RUN_FILES)])
        if not resume:  # asked first: --overwrite, which the other message names, would discard it
            self._check_unfinished(rerun)
        if self.files[0] in files:
            self.check_result(rerun)
        return resume

    def start(self, job: TrainingJob, resume: bool) -> None:
        """Give a job what its checkpoints hold; one of an earlier run is deleted, or resumed."""
        job.signature = self.checkpoint.signature
        job.targets = dict(self.checkpoint.targets)
        if is_main_process() and not resume:
            self.checkpoint.path.unlink(missing_ok=True)

    @property
    def _steps(self) -> int:
        return self.request.settings.steps

    def check_result(self, rerun: bool) -> None:
        """Refuse to replace a result of other settings or of more steps."""
        path = self.files[0]
        record = load(path).record if path.exists() else None
        if record is None or (rerun and RERUN in record.command.split()):
            return
        reason = self._other_stage(record) or self._other_settings(record)
        if reason:
            raise KdpError(f"{path} would be replaced, and it {reason}: {ELSEWHERE}")

    def _other_stage(self, record: Provenance) -> str | None:
        return None if record.stage == self.request.stage else f"was written by kdp {record.stage}"

    def _other_settings(self, record: Provenance) -> str | None:
        stage = self.request.stage
        before = training_settings(record.config, stage)
        now = training_settings(self.request.config.plain(), stage)
        change = difference(_known(before, record), _known(now, record))
        if change:
            return f"was made with {change}"
        sources = [parent.sha256 for parent in record.parents]
        if sources[len(sources) - len(self.sources) :] != [p.sha256 for p in self.sources]:
            return "was made from other weights or teachers"
        # Earlier versions knew no epochs, and their records hold the steps in the section alone.
        steps = record.training.get("steps") or (record.config.get(stage) or {}).get("steps") or 0
        return f"took {steps} steps, this run {self._steps}" if steps > self._steps else None

    def _check_unfinished(self, rerun: bool) -> None:
        unfinished = self.checkpoint.unfinished(self.files)
        if unfinished and not (rerun and RERUN in unfinished.command.split()):
            raise KdpError(
                f"{self.checkpoint.path} holds an unfinished run at step {unfinished.step}: "
                "--resume or --overwrite it"
            )


def _signature(
    request: TrainingRequest, parents: Sequence[Parent], samples: Sequence[Any]
) -> dict[str, Any]:
    """What a resumed run must share with the one it continues, files by their content.

    The number of steps may grow, and how often a run logs and validates may change.
    """
    settings = training_settings(request.config.plain(), request.stage)
    if request.distill and request.distill.distill.task_reduction == "sum":
        settings[TASK_REDUCTION] = "sum"
    # Data may be copied to another machine before a run resumes, which changes times.
    digest = fingerprint(samples, times=False)
    return {**settings, "parents": [parent.sha256 for parent in parents], "samples": digest}


def _known(settings: Settings, record: Provenance) -> Settings:
    """Settings of the sections that a record has; an old or short one has fewer."""
    return {key: v for key, v in settings.items() if key.partition(".")[0] in record.config}


def protection(path: Path) -> str | None:
    """Why an existing file, of no repository, is not replaced; None where kdp wrote it.

    Artifacts hold a record of how they were made. Of other files kdp knows those that it noted and
    nobody has changed since, and the curves of trainings and the progress of rounds.
    """
    return protection_and_record(path)[0]


def protection_and_record(path: Path) -> tuple[str | None, Provenance | None]:
    """The same with the record of an artifact that is not protected, where it has one."""
    if path.suffix != ".pth":
        is_run_log = path.name not in TABLES and is_log_of_kdp(path)
        return None if is_run_log or is_written_by_kdp(path) else CHANGED, None
    shipped = shipped_weight(Path("weights", path.name))
    if shipped and shipped.is_file() and sha256(shipped) == sha256(path):
        return "it is a weight that comes with kdp", None
    try:
        artifact = load(path)
    except KdpError:
        return "kdp did not write it, or it is damaged", None
    written = artifact.record or artifact.arch or artifact.extra
    return (None, artifact.record) if written else ("kdp did not write it", None)


def is_log_of_kdp(path: Path) -> bool:
    """Whether a file of the name of a log begins as kdp writes it, or is empty."""
    if path.name not in LOG_CONTENT:
        return False
    try:
        check_regular(path)
        with path.open("rb") as file:
            beginning = file.read(BEGINNING)
    except OSError:
        return False
    return not beginning or LOG_CONTENT[path.name] in beginning


def _git_files(folder: Path, names: Sequence[str]) -> set[str]:
    command = ["git", "--literal-pathspecs", "ls-files", "-z", "--", *names]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return set()
    return set(done.stdout.split("\0")) - {""}
