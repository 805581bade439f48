"""Cached targets equal live ones and are read only where their settings match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdp.artifacts import load
from kdp.config import Config
from kdp.distillation.target_cache import (
    first_target,
    is_cached,
    target_path,
    write_index,
    write_targets,
)
from kdp.distillation.teacher import TeacherEnsemble
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.stages.train import cache_targets as stage
from kdp.stages.train.cache_targets import cache_targets
from kdp.stages.train.objective import build_objective
from kdp.stages.train.request import DistillRequest
from kdp.stages.train.train import train
from kdp.tasks import task_for
from kdp.types import Arch, Provenance
from tests.conftest import same_params
from tests.distillation.helpers import NARROW, student_config, teacher_files
from tests.runs import DATA_CHANGES, SHORT, change_data


def with_target_cache(folder: Path, **changes: Any) -> Config:
    """A student that reads `folder/targets`."""
    return student_config(folder, target_cache=str(folder / "targets"), **changes)


def with_train(settings: Config, **changes: Any) -> Config:
    """The same configuration with other values in `train`."""
    assert settings.train is not None
    return settings.model_copy(update={"train": settings.train.model_copy(update=changes)})


def features_by_number(settings: Config, count: int) -> list[Tensor]:
    """Cached targets by sample number."""
    task = task_for(Arch("catanet", NARROW), settings)
    torch.manual_seed(0)
    request = DistillRequest.from_config(settings)
    data = build_objective(task, build("catanet", **NARROW), request, 10).data(count)
    return [data[number]["teacher.0.mid_convs.1"] for number in range(count)]


def test_cached_targets_give_the_same_student(tmp_path: Path) -> None:
    train(student_config(tmp_path, name="live"))
    reading = with_target_cache(tmp_path, name="reading")
    targets = cache_targets(reading)
    assert targets.samples == SHORT["steps"] * SHORT["batch_size"]
    assert load(targets.folder / "index.pth").record.stage == "cache-targets"
    train(reading)
    a, b = (load(tmp_path / f"w/{name}.pth").params for name in ("live", "reading"))
    assert same_params(a, b)


def test_one_cache_serves_students_of_other_names_and_losses(tmp_path: Path) -> None:
    cache_targets(with_target_cache(tmp_path))
    train(with_target_cache(tmp_path, name="other", losses={"fakd": {"options": {"sample": 4}}}))
    assert (tmp_path / "w/other.pth").exists()


def test_caching_again_computes_only_missing_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdp.stages.train.cache_targets.FILE_BYTES", 1)  # a file for every sample
    settings = with_target_cache(tmp_path)
    folder = cache_targets(settings).folder
    files = sorted(folder.glob("0*.pth"))
    assert len(files) == SHORT["steps"] * SHORT["batch_size"]
    files[2].unlink()
    before = {path: path.stat().st_mtime_ns for path in files if path.exists()}
    cache_targets(settings)
    assert files[2].exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize(
    "changes", [{"steps": 9}, {"batch_size": 3}, {"steps": 2, "batch_size": 7}]
)
def test_the_cache_of_a_longer_training_is_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(
        "kdp.stages.train.cache_targets.FILE_BYTES", 5 * 20_000
    )  # files of a few samples
    settings = with_target_cache(tmp_path)
    cache_targets(settings)
    grown = with_train(settings, **changes)
    count = grown.train.steps * grown.train.batch_size if grown.train else 0
    with pytest.raises(KdpError, match=f"{count} are needed"):
        train(grown)
    cache_targets(grown)
    cached_features = features_by_number(grown, count)
    files = sorted((tmp_path / "targets").glob("0*.pth"))
    assert len(files) > 1
    expected = live_features(grown, count)
    # Batches of another size may take other kernels, which sum in float32 in another order.
    for cached, live in zip(cached_features, expected, strict=True):
        torch.testing.assert_close(cached, live, atol=1e-5, rtol=1e-4)


def live_features(settings: Config, count: int) -> list[Tensor]:
    """Teacher features of each sample, computed one by one."""
    task = task_for(Arch("catanet", NARROW), settings)
    network, _, _ = load_network(DistillRequest.from_config(settings).teacher.paths[0])
    source = TeacherEnsemble([network], ["mid_convs.1"], task.inputs)
    data = task.training_data(count)
    batches = ({k: v[None] for k, v in data[n].items()} for n in range(count))
    return [source(batch).features[0]["mid_convs.1"][0] for batch in batches]


def test_an_incomplete_cache_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdp.stages.train.cache_targets.FILE_BYTES", 1)
    cache_targets(with_target_cache(tmp_path))
    other = with_target_cache(tmp_path, teacher={"weights": teacher_files(tmp_path, 2)[1]})
    writes = iter(range(3))

    def fails(*arguments: Any) -> None:
        if next(writes, None) is None:
            raise KdpError("the disk is full")
        plain(*arguments)

    plain = stage.write_targets
    monkeypatch.setattr(stage, "write_targets", fails)
    with pytest.raises(KdpError, match="disk is full"):
        cache_targets(other)
    for settings in (other, with_target_cache(tmp_path)):
        with pytest.raises(KdpError, match="run `kdp cache-targets` first"):
            train(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "run `kdp cache-targets` first"),
        ({"taps": {"mid_convs.0": "mid_convs.0"}}, "other taps"),
        ({"seed": 4}, "other inputs, seed"),
    ],
)
def test_targets_of_other_settings_are_rejected(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if changes:
        cache_targets(with_target_cache(tmp_path))
    seed = changes.pop("seed", 0)
    settings = with_target_cache(tmp_path, **changes).model_copy(update={"seed": seed})
    with pytest.raises(KdpError, match=message):
        train(settings)


@pytest.mark.parametrize("change", DATA_CHANGES)
def test_targets_of_other_images_are_rejected(tmp_path: Path, change: str) -> None:
    settings = with_target_cache(tmp_path)
    cache_targets(settings)
    change_data(tmp_path / "images", change)
    with pytest.raises(KdpError, match=r"other .*samples; run `kdp cache-targets` again"):
        train(settings)


def test_a_cache_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    old, key = {"seed": 1, "pictures": "0a"}, {"seed": 1, "inputs": "0a"}
    write_targets(target_path(tmp_path, 0), old, {"teacher.0": torch.ones(2, 3)})
    write_index(tmp_path, old, Provenance("teach"), samples=2, size=2)
    assert first_target(tmp_path, key)["teacher.0"].tolist() == [1, 1, 1]
    assert is_cached(target_path(tmp_path, 0), key, 2)


def test_missing_cache_files_and_teachers_are_rejected(tmp_path: Path) -> None:
    settings = with_target_cache(tmp_path)
    cache_targets(settings)
    (tmp_path / "targets" / "000000.pth").unlink()
    with pytest.raises(
        KdpError, match=r"000000\.pth does not exist; run `kdp cache-targets` again"
    ):
        train(settings)
    Path(teacher_files(tmp_path)[0]).unlink()
    with pytest.raises(KdpError, match=r"teacher_0\.pth does not exist"):
        cache_targets(settings)
