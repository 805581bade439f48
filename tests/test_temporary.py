"""What a killed run leaves half written is removed by the next one, and nothing else is."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from kdp import temporary
from kdp.files import append_line, file_lock, is_locked, write_atomic
from kdp.temporary import remove_abandoned, temporary_file, temporary_folder


@pytest.fixture(autouse=True)
def _always_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "_SHARE", math.inf)


def die(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(work: Callable[[], object]) -> None:
    """Run something that kills its process, in a process of its own."""
    child = os.fork()
    if not child:
        work()
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def killed_inside(context: AbstractContextManager[object]) -> None:
    def work() -> None:
        with context:
            die()

    killed(work)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("moment", ["fsync", "replace"])
@pytest.mark.parametrize("name", ["a.pth", "größe " + 115 * "ß", "a\n.json"])
def test_the_next_writing_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, name: str
) -> None:
    write_atomic(tmp_path / name, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, moment, die)
        killed(lambda: write_atomic(tmp_path / name, b"new"))
    assert len(names(tmp_path)) == 2
    assert (tmp_path / name).read_bytes() == b"old"
    write_atomic(tmp_path / "other", b"")
    assert names(tmp_path) == sorted([name, "other"])


def test_the_lock_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    killed_inside(file_lock(tmp_path / "a.pth"))
    (left,) = names(tmp_path)
    assert "a.pth" in left
    assert not is_locked(tmp_path / "a.pth")
    remove_abandoned(tmp_path)
    assert not names(tmp_path)


def test_the_lock_of_a_killed_run_goes_with_the_next_lock_in_its_folder(tmp_path: Path) -> None:
    killed_inside(file_lock(tmp_path / "a.pth"))
    assert list(tmp_path.iterdir())
    with file_lock(tmp_path / "b.pth"), file_lock(tmp_path / "c.pth"):
        assert is_locked(tmp_path / "b.pth")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_a_killed_run_was_filling_is_removed(tmp_path: Path) -> None:
    def fill() -> None:
        with temporary_folder(tmp_path / "experiment") as folder:
            (folder / "metrics.json").touch()
            die()

    killed(fill)
    assert len(names(tmp_path)) == 1
    with temporary_folder(tmp_path / "experiment") as folder:
        assert not names(folder)
        folder.rename(tmp_path / "experiment")
    assert names(tmp_path) == ["experiment"]


def test_folders_for_temporary_files_of_the_system_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed_inside(temporary_folder())
    assert len(names(tmp_path)) == 1
    with temporary_folder() as folder:
        assert names(tmp_path) == [folder.name]
    assert not names(tmp_path)


def test_what_a_running_process_writes_stays(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with (
            temporary_file(tmp_path / "a"),
            temporary_folder(tmp_path / "b"),
            file_lock(tmp_path / "c"),
        ):
            os.write(write, b"x")
            signal.pause()
    os.read(read, 1)
    before = names(tmp_path)
    remove_abandoned(tmp_path)
    assert len(before) == 3
    assert names(tmp_path) == before
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    write_atomic(tmp_path / "d", b"")
    assert names(tmp_path) == ["d"]


@pytest.mark.parametrize(
    "name",
    [
        ".a.pth.x1y2z3",
        ".a.lock",
        "a.kdp-tmp",
        ".kdp",
        ".a.swp",
        ".kdp-tmp",
        "~a.pth",
        ".a.kdp-tmp.d/b",
    ],
)
def test_files_of_other_programs_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    remove_abandoned(path.parent)
    assert path.exists()


def test_a_link_with_the_name_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    for number, target in enumerate((precious, precious / "file")):
        (tmp_path / f".a.{number}.kdp-tmp").symlink_to(target)
    remove_abandoned(tmp_path)
    assert (precious / "file").exists()


def test_a_file_that_is_taken_for_abandoned_at_its_start_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = temporary._lock, []

    def late(handle: int) -> None:
        if not calls:
            calls.append(handle)
            remove_abandoned(tmp_path)
            for path in tmp_path.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        lock(handle)

    monkeypatch.setattr(temporary, "_lock", late)
    write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    calls.clear()
    with temporary_folder(tmp_path / "b") as folder:
        assert folder.is_dir()


@pytest.mark.parametrize("torn", ["", "whole\n", "to", '{"path": "a", "sha'])
def test_a_line_is_never_appended_to_an_unfinished_one(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(torn)
    append_line(path, "first")
    append_line(path, "second")
    assert path.read_text().splitlines() == [*torn.splitlines(), "first", "second"]


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" * 241])
def test_files_of_the_longest_names_are_locked_and_written(tmp_path: Path, name: str) -> None:
    with file_lock(tmp_path / name):
        write_atomic(tmp_path / name, b"new")
        assert is_locked(tmp_path / name)
    assert names(tmp_path) == [name]


def test_the_fork_of_a_process_leaves_its_temporary_folder(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "a") as folder:
        child = os.fork()
        if not child:
            with suppress(SystemExit):
                sys.exit()
        else:
            os.waitpid(child, 0)
            assert folder.exists()
    if not child:
        os._exit(0)
    assert not names(tmp_path)


def test_the_folder_is_synchronised_after_the_name_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[tuple[bool, bool]] = []

    def fsync(handle: int) -> None:
        folder = os.path.samestat(os.fstat(handle), tmp_path.stat())
        synchronised.append((folder, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "a", b"")
    assert synchronised == [(False, False), (True, True)]
