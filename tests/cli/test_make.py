"""The Makefile's chain, with a stand-in for kdp that only records its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

STAND_IN = """#!/bin/bash
declare -A target=([train]=w/trained.pth [infer]=w/astronaut.png)
target+=([prune]=w/masks.pth [finetune]=w/fine.pth [rebuild]=w/small.pth [compare]=w/t.md)
if [ "$1" = paths ]; then
    echo "CONFIGS := $(find configs -name "${3##*/}") $(cat composed 2>/dev/null)"
    echo "FUTURE := $(cat future 2>/dev/null)"
    echo "TEACHER := w/teacher.pth"
    echo "PRUNED := w/pruned.pth"
    echo "MASKS := w/masks.pth"
    echo "SCORES := w/scores.pth"
    echo "FINETUNED := w/fine.pth"
    if [[ "$*" == *dynamic* ]]; then echo "SOURCE := w/trained.pth"
    else echo "SOURCE := w/fine.pth"; fi
    echo "TRAINED := w/trained.pth"
    echo "COMPARED := w/teacher.pth w/small.pth"
    echo "REBUILT := w/small.pth"
    echo "TABLE := w/t.md"
    exit
fi
echo "$@" >> calls
[ "$1" = "$(cat failing 2>/dev/null)" ] && exit 1
[ -z "${target[$1]}" ] || touch "${target[$1]}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose environment is ready and whose kdp is the stand-in."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "configs/config_catanet.yml",
        "w/teacher.pth",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    kdp = tmp_path / ".venv" / "bin" / "kdp"
    kdp.write_text(STAND_IN)
    kdp.chmod(0o755)
    (tmp_path / ".venv" / ".ready").touch()
    return tmp_path


def make(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=project, capture_output=True, text=True, env=environment
    )


def calls(project: Path) -> list[str]:
    """The subcommands since the last call."""
    path = project / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.split()[0] for line in lines]


def configuration(project: Path, *names: str) -> None:
    """Create configuration files, whose times Make reads."""
    for name in names:
        path = project / "configs" / f"{name}.yml"
        path.parent.mkdir(exist_ok=True)
        path.touch()


def change(project: Path, name: str) -> None:
    """Make a configuration newer than all files made from it."""
    later = (project / "w" / "t.md").stat().st_mtime + 5
    os.utime(project / "configs" / f"{name}.yml", (later, later))


def test_all_runs_the_chain_once(project: Path) -> None:
    assert make(project, "all").returncode == 0
    assert calls(project) == ["prune", "finetune", "rebuild", "compare"]
    assert "Nothing to be done" in make(project, "all").stdout
    assert calls(project) == []


def test_a_changed_configuration_runs_the_chain_again(project: Path) -> None:
    make(project)
    calls(project)
    change(project, "config_catanet")
    make(project)
    assert calls(project)[0] == "prune"


def test_a_change_in_an_included_file_runs_the_chain_again(project: Path) -> None:
    (project / "composed").write_text("configs/base.yml")
    (project / "configs" / "base.yml").touch()
    make(project)
    assert calls(project)[0] == "prune"
    assert "Nothing to be done" in make(project).stdout
    change(project, "base")
    make(project)
    assert calls(project)[0] == "prune"


def test_a_file_no_longer_included_may_be_deleted(project: Path) -> None:
    (project / "composed").write_text("configs/base.yml")
    (project / "configs" / "base.yml").touch()
    make(project)
    calls(project)
    (project / "configs" / "base.yml").unlink()
    (project / "composed").unlink()
    change(project, "config_catanet")
    done = make(project)
    assert done.returncode == 0, done.stderr
    assert calls(project)[0] == "prune"


def test_the_next_run_continues_at_the_failed_stage(project: Path) -> None:
    (project / "failing").write_text("finetune")
    assert make(project).returncode != 0
    assert calls(project) == ["prune", "finetune"]
    (project / "failing").unlink()
    assert make(project).returncode == 0
    assert calls(project) == ["finetune", "rebuild", "compare"]


@pytest.mark.parametrize("goal", ["train", "finetune"])
def test_training_resumes_a_matching_checkpoint_only(project: Path, goal: str) -> None:
    make(project, goal)
    *_, last = (project / "calls").read_text().splitlines()
    assert last.startswith(goal)
    assert "--rerun" in last
    assert "--overwrite" not in last


def test_a_configuration_is_found_by_its_name(project: Path) -> None:
    assert make(project, "all", "CONFIG=config_catanet.yml").returncode == 0
    assert calls(project) == ["prune", "finetune", "rebuild", "compare"]
    change(project, "config_catanet")
    make(project, "all", "CONFIG=config_catanet.yml")
    assert calls(project)[0] == "prune"


def test_a_configuration_dated_in_the_future_does_not_loop(project: Path) -> None:
    shipped = project / "configs" / "base.yml"
    shipped.touch()
    os.utime(shipped, (4e9, 4e9))
    (project / "future").write_text("configs/base.yml")
    assert make(project).returncode == 0
    assert calls(project) == ["prune", "finetune", "rebuild", "compare"]
    assert "Nothing to be done" in make(project).stdout
    (project / "future").unlink()
    (project / "composed").write_text("configs/base.yml")
    change(project, "base")
    make(project)
    assert calls(project)[0] == "prune"


@pytest.mark.parametrize(
    "value",
    [
        "a;touch x",
        "a b.yml",
        "$$(touch x)",
        "$(shell touch x)",
        "${shell touch x}",
        "`touch x`",
        "a\ntouch x",
        "a#b",
        "'",
    ],
)
@pytest.mark.parametrize("name", ["CONFIG", "DEVICE"])
def test_nothing_reaches_the_shell_unescaped(project: Path, name: str, value: str) -> None:
    done = make(project, "all", f"{name}={value}")
    assert done.returncode != 0
    assert "may have no spaces" in done.stderr
    assert not (project / "x").exists()


def test_clean_leaves_the_choice_of_files_to_kdp(project: Path) -> None:
    assert make(project, "clean", "CONFIG=other.yml").returncode == 0
    assert (project / "calls").read_text() == "clean --config other.yml\n"


def test_config_and_device_reach_every_stage(project: Path) -> None:
    other = project / "configs" / "other.yml"
    other.touch()
    make(project, "all", "CONFIG=configs/other.yml", "DEVICE=cuda")
    lines = (project / "calls").read_text().splitlines()
    assert len(lines) == 4
    assert all("configs/other.yml" in line and "cuda" in line for line in lines)


def test_student_is_trained_rebuilt_and_compared(project: Path) -> None:
    configuration(project, "catanet/student_dynamic")
    assert make(project, "student").returncode == 0
    assert calls(project) == ["train", "rebuild", "compare"]
    make(project, "student")
    assert calls(project) == []


def test_face_runs_from_training_to_a_labelled_image(project: Path) -> None:
    configuration(project, "face_mask/face_mask", "face_mask/face_mask_kd_small", "face_mask_prune")
    (project / ".venv" / "bin" / "python").symlink_to("/bin/true")
    done = make(project, "face")
    assert done.returncode == 0, done.stderr
    commands = calls(project)
    assert commands[0] == "train"
    assert commands[-6:] == ["prune", "finetune", "rebuild", "compare", "compare", "infer"]


def test_scenes_runs_from_training_to_a_table(project: Path) -> None:
    configuration(project, "scenes/cp_mobile", "scenes/rep_mobile", "scenes/rep_mobile_kd")
    done = make(project, "scenes")
    assert done.returncode == 0, done.stderr
    command_lines = (project / "calls").read_text().splitlines()
    assert calls(project)[-3:] == ["prune", "rebuild", "compare"]
    compared = command_lines[-1].split()[1:5]
    assert [Path(file).stem.removeprefix("rep_mobile_") for file in compared] == [
        "cp_mobile",
        "kd",
        "kd_rebuilt",
        "progressive_rebuilt",
    ]
