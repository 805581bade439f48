"""Dividing one folder per class into training, validation and test images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdp.config.compose import load_config
from kdp.data.images import ImageArray, read_rgb
from kdp.data.split import Split
from kdp.errors import KdpError
from kdp.tasks.classification.task import Classification
from kdp.types import Arch
from tests.conftest import ROOT

PARTS = ("train", "val", "test")
CLASSES = ("with_mask", "without_mask", "chin")


@dataclass(frozen=True)
class Sample:
    label: int
    files: tuple[Path, ...]


def samples(folder: Path, *counts: int) -> list[Sample]:
    """As many files as given for each class, all of different content."""
    members = []
    for label, count in enumerate(counts):
        for number in range(count):
            path = folder / f"{label}_{number}"
            path.write_text(path.name)
            members.append(Sample(label, (path,)))
    return members


def names(split: Split, members: list[Sample], part: str) -> set[str]:
    return {sample.files[0].name for sample in split.part(members, part)}  # type: ignore[arg-type]


def test_the_parts_of_the_collection_have_the_documented_sizes(tmp_path: Path) -> None:
    members = samples(tmp_path, 1620, 1656)
    parts = [Split(0, 0.1, 0.1).part(members, part) for part in PARTS]  # type: ignore[arg-type]
    counts = [Counter(sample.label for sample in part) for part in parts]
    assert counts == [{0: 1296, 1: 1324}, {0: 162, 1: 166}, {0: 162, 1: 166}]
    assert {s.files for part in parts for s in part} == {s.files for s in members}
    # The sizes and this row of the documentation are the same.
    assert "| 2,620 | 328 | 328 |" in (ROOT / "docs" / "face-masks.md").read_text()


def test_names_and_order_do_not_matter_and_the_seed_does(tmp_path: Path) -> None:
    members = samples(tmp_path, 40, 60)
    first = names(Split(1, 0.2, 0.2), members, "test")
    assert names(Split(1, 0.2, 0.2), members[::-1], "test") == first
    assert names(Split(2, 0.2, 0.2), members, "test") != first
    for sample in members:
        sample.files[0].rename(tmp_path / f"renamed_{sample.files[0].name}")
    renamed = [Sample(s.label, (tmp_path / f"renamed_{s.files[0].name}",)) for s in members]
    assert names(Split(1, 0.2, 0.2), renamed, "test") == {f"renamed_{name}" for name in first}


def test_copies_of_a_file_are_in_one_part(tmp_path: Path) -> None:
    members = samples(tmp_path, 30)
    for number in range(30):
        copy = tmp_path / f"copy_{number}"
        copy.write_bytes(members[number].files[0].read_bytes())
        members.append(Sample(0, (copy,)))
    for part in PARTS:
        chosen = names(Split(0, 0.3, 0.3), members, part)
        originals = {name[2:] for name in chosen if name.startswith("0_")}
        assert originals == {name[5:] for name in chosen if name.startswith("copy_")}


def test_an_added_file_leaves_most_others_where_they_are(tmp_path: Path) -> None:
    members = samples(tmp_path, 101)
    before, after = (names(Split(0, 0.2, 0.2), own, "val") for own in (members[:100], members))
    assert len(before ^ after) <= 3


def test_a_class_that_is_too_small_is_named(tmp_path: Path) -> None:
    with pytest.raises(KdpError, match="class 1 has 3 samples, of which val gets none"):
        Split(0, 0.1, 0.1).part(samples(tmp_path, 30, 3), "val")


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten images of each of three classes."""
    for label, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        for number in range(10):
            image = np.full((8, 8, 3), 80 * label + number, np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), image)
    monkeypatch.setenv("KDP_FACES", str(tmp_path))
    return tmp_path


def test_any_number_of_classes_is_divided_without_overlap(collection: Path) -> None:
    classes = f"model.args.classes=[{','.join(CLASSES)}]"
    config = load_config(Path("face_mask.yml"), ["faces=collection", classes, "data.split.seed=3"])
    assert config.model is not None
    task = Classification(Arch("mask_classifier", config.model.args), config)
    parts = [task.training_samples, *task.evaluation_sets.values()]
    assert [len(part) for part in parts] == [24, 3, 3]
    assert len({image.files for part in parts for image in part}) == 30
    assert list(task.evaluation_sets) == ["val", "test"]


def test_the_folder_of_all_parts_is_decoded_once(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def read(path: Path) -> ImageArray:
        decoded.append(path)
        return read_rgb(path)

    monkeypatch.setattr("kdp.data.folders.read_rgb", read)
    config = load_config(Path("face_mask.yml"), ["faces=collection"])
    args = {"classes": list(CLASSES)}
    task = Classification(Arch("mask_classifier", args), config)
    assert [len(task.training_samples), *map(len, task.evaluation_sets.values())] == [24, 3, 3]
    assert len(decoded) == len(set(decoded)) == 30


@pytest.mark.parametrize("key", ["val", "test", "seed"])
def test_every_part_follows_the_split_of_the_training_data(collection: Path, key: str) -> None:
    value = {"val": 0.3, "test": 0.2, "seed": 5}[key]
    config = load_config(Path("face_mask.yml"), ["faces=collection", f"data.split.{key}={value}"])
    plain = config.plain()
    sections = [plain["data"], *plain["evaluation"].values()]
    assert [section["split"][key] for section in sections] == [value] * 3


def test_shares_that_leave_nothing_are_refused(collection: Path) -> None:
    with pytest.raises(KdpError, match="leave nothing to train on"):
        load_config(Path("face_mask.yml"), ["faces=collection", "data.split.val=0.9"])
