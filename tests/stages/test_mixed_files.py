"""Networks and masks of different runs are refused by whatever reads them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdp.artifacts import Artifact, load, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.pruning.groups import Masks
from kdp.pruning.identity import MASKS_DIGEST, NETWORK_DIGEST, MasksIdentity, masked_extra
from kdp.pruning.masks import zero_removed
from kdp.removed import REMOVED
from kdp.stages.compare.compare import compare, evaluate
from kdp.stages.export.export import ExportRequest, export
from kdp.stages.infer.infer import infer
from kdp.stages.infer.request import InferRequest
from kdp.stages.inspect_weights import inspect, show
from kdp.stages.paths import chain_paths
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.stages.train.finetune import finetune
from kdp.tasks.super_resolution.groups import catanet_groups
from kdp.types import Arch
from tests import runs
from tests.runs import config

CALIBRATION = {"patches": 2, "patch_size": 10}


def small(folder: Path, criterion: str = "magnitude", budget: float = 0.8) -> Config:
    return config(
        folder,
        prune={"criterion": criterion, "calibration": CALIBRATION},
        measure={"input_size": [16, 16]},
        mac_constraint=budget,
    )


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher and what was pruned from it."""
    folder = tmp_path_factory.mktemp("pruned")
    runs.prune(folder)
    prune(small(folder))
    return folder


@pytest.fixture
def folder(pruned: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    shutil.copytree(pruned / "weights", tmp_path / "weights")
    for name in ("teacher.pth", "images", "evaluation"):
        (tmp_path / name).symlink_to(pruned / name)
    return tmp_path


def fine_tuned(folder: Path) -> Path:
    """What `finetune` would write, without the training."""
    paths = chain_paths(small(folder))
    artifact = load(paths.pruned)
    params = {name: 1.01 * tensor for name, tensor in artifact.params.items()}
    save(paths.finetuned, replace(artifact, params=params))
    return paths.finetuned


def other_masks(folder: Path, **changes: Any) -> Path:
    """The masks of another search in the same network."""
    target = folder / "weights/other_masks.pth"
    settings = small(folder, **changes)
    output = settings.output.model_copy(update={"name": "other"})
    shutil.copy(prune(settings.model_copy(update={"output": output})).masks, target)
    return target


def test_the_files_of_one_run_are_rebuilt(folder: Path, messages: list[str]) -> None:
    done = rebuild(small(folder), source=fine_tuned(folder))
    assert done.difference < 1e-10
    masks, rebuilt = load(chain_paths(small(folder)).masks), load(done.path)
    assert MasksIdentity.of(rebuilt) == MasksIdentity.of(masks)
    assert not any("does not say which masks" in line for line in messages)


@pytest.mark.parametrize("changes", [{"criterion": "random"}, {"budget": 0.75}])
def test_rebuild_does_not_take_what_was_fine_tuned_before_another_pruning(
    folder: Path, changes: dict[str, Any]
) -> None:
    fine_tuned(folder)
    settings = small(folder, **changes)
    prune(settings)
    with pytest.raises(KdpError, match=r"finetuned_feature_kd\.pth was made with other masks"):
        rebuild(settings)
    assert not chain_paths(settings).rebuilt.exists()


def test_finetune_notices_a_stop_between_network_and_masks(folder: Path) -> None:
    """The masks of the larger budget fit the new zeros; only their identity tells."""
    paths = chain_paths(small(folder))
    before = paths.masks.read_bytes()
    prune(small(folder, budget=0.75))
    paths.masks.write_bytes(before)
    with pytest.raises(KdpError, match=r"tiny_pruned\.pth was made with other masks"):
        finetune(small(folder))


@pytest.mark.parametrize("changes", [{"criterion": "random"}, {"budget": 0.9}])
def test_masks_of_another_search_are_refused(folder: Path, changes: dict[str, Any]) -> None:
    masks = other_masks(folder, **changes)
    with pytest.raises(KdpError, match=r"tiny_pruned\.pth was made with other masks .*other_masks"):
        rebuild(small(folder), source=folder / "weights/tiny_pruned.pth", masks_path=masks)


def test_equal_masks_of_another_network_are_refused(folder: Path) -> None:
    masks = chain_paths(small(folder)).masks
    artifact = load(masks)
    save(masks, replace(artifact, extra={**artifact.extra, NETWORK_DIGEST: "0" * 64}))
    with pytest.raises(KdpError, match=r"tiny_pruned\.pth was made with other masks"):
        rebuild(small(folder))


def test_masks_that_were_exchanged_in_their_file_are_refused(folder: Path) -> None:
    paths = chain_paths(small(folder))
    artifact = load(paths.masks)
    kept = {name: torch.ones_like(mask) for name, mask in artifact.extra["masks"].items()}
    save(paths.masks, replace(artifact, extra={**artifact.extra, "masks": kept}))
    with pytest.raises(KdpError, match=r"tiny_pruning_masks\.pth is damaged"):
        rebuild(small(folder))


def test_an_unpruned_network_is_refused(folder: Path) -> None:
    with pytest.raises(KdpError, match=r"teacher\.pth has weights other than zero where the masks"):
        rebuild(small(folder), source=folder / "teacher.pth")


@pytest.mark.parametrize("early", [False, True], ids=["bare weights", "early version"])
def test_weights_without_identity_are_taken_where_removed_units_are_zero(
    folder: Path, messages: list[str], early: bool
) -> None:
    path = folder / "weights/outside.pth"
    artifact = load(folder / "weights/tiny_pruned.pth")
    record = artifact.record if early else None
    save(path, Artifact(artifact.params, artifact.arch, record))
    assert rebuild(small(folder), source=path).difference < 1e-10
    assert any("outside.pth does not say which masks" in line for line in messages)
    filled = {name: torch.full_like(tensor, 1) for name, tensor in artifact.params.items()}
    save(path, Artifact(filled, artifact.arch, record))
    with pytest.raises(KdpError, match=r"outside\.pth has weights other than zero"):
        rebuild(small(folder), source=path)


READERS: dict[str, Callable[[Path, Path], object]] = {
    "compare": lambda path, folder: compare([path], small(folder)),
    "export": lambda path, folder: export(path, ExportRequest("onnx"), small(folder)),
    "infer": lambda path, folder: infer(
        path, InferRequest([str(folder / "images/0.png")]), small(folder), print
    ),
    "inspect": lambda path, folder: inspect(path),
    "prune": lambda path, folder: prune(small(folder).model_copy(update={"teacher": path})),
    "rebuild": lambda path, folder: rebuild(small(folder), source=path),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_removed_units_that_came_back(folder: Path, reader: str) -> None:
    path = folder / "weights/tiny_pruned.pth"
    content = torch.load(path, weights_only=True)
    teacher: dict[str, Tensor] = load(folder / "teacher.pth").params
    torch.save({**content, "params": teacher}, path)
    with pytest.raises(KdpError, match=r"tiny_pruned\.pth has weights other than zero in removed"):
        READERS[reader](path, folder)


def test_compare_names_a_file_that_was_made_from_an_earlier_one(
    folder: Path, messages: list[str]
) -> None:
    settings, paths = small(folder), chain_paths(small(folder))
    source = fine_tuned(folder)
    rebuild(settings)
    evaluate([source, paths.rebuilt], settings)
    assert not any("another" in line for line in messages)
    save(source, load(paths.pruned))
    evaluate([source, paths.rebuilt], settings)
    (line,) = (line for line in messages if "another" in line)
    assert f"{paths.rebuilt} was made from another {source}" in line


@pytest.mark.parametrize("name", ["tiny_pruned", "tiny_finetuned_feature_kd", "tiny_rebuilt"])
def test_compare_names_a_network_that_was_pruned_from_another(
    folder: Path, messages: list[str], name: str
) -> None:
    settings, paths = small(folder), chain_paths(small(folder))
    fine_tuned(folder)
    rebuild(settings)
    teacher, other = load(folder / "teacher.pth"), folder / "other_seed.pth"
    save(other, teacher)  # written anew, with the same weights
    evaluate([other, paths.pruned.with_name(f"{name}.pth")], settings)
    assert not any("another network" in line for line in messages)
    params = {name: 1.1 * tensor for name, tensor in teacher.params.items()}
    save(other, replace(teacher, params=params))
    evaluate([other, paths.pruned.with_name(f"{name}.pth")], settings)
    (line,) = (line for line in messages if "another network" in line)
    assert re.search(rf"{name}\.pth was pruned from .*teacher\.pth \(", line)
    assert f"not compared here: {other} is another network" in line
    messages.clear()
    evaluate([other, paths.rebuilt, folder / "teacher.pth"], settings)
    assert not any("another network" in line for line in messages)


def test_inspect_weights_tells_files_of_different_prunings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = chain_paths(small(folder))
    show([inspect(path) for path in (paths.pruned, paths.masks)])
    assert "different prunings" not in capsys.readouterr().out
    show([inspect(path) for path in (paths.pruned, other_masks(folder, criterion="random"))])
    output = capsys.readouterr().out
    assert "different prunings" in output
    assert f"masks {load(paths.masks).extra[MASKS_DIGEST][:12]} of network" in output


@pytest.mark.parametrize(
    "stored", [{}, {"axes": [["gone", 0]], "entries": torch.zeros(8)}, 3, {"axes": 1, "entries": 2}]
)
def test_a_list_of_removed_entries_that_does_not_fit_is_damage(folder: Path, stored: Any) -> None:
    path = folder / "weights/tiny_pruned.pth"
    content = torch.load(path, weights_only=True)
    torch.save({**content, REMOVED: stored}, path)
    with pytest.raises(KdpError, match=r"tiny_pruned\.pth is damaged: its list of removed entries"):
        load(path)


def test_the_list_of_removed_entries_is_that_of_the_masks(folder: Path) -> None:
    """Every parameter that zeroing changes is listed, and nothing else."""
    model, _, _ = load_network(folder / "teacher.pth")
    groups = catanet_groups(model)
    masks: Masks = dict(load(chain_paths(small(folder)).masks).extra["masks"])
    stored = masked_extra(model, groups, masks, MasksIdentity("a", None))
    assert stored.keys() == {MASKS_DIGEST, REMOVED}
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    zero_removed(model, groups, masks)
    names = {name for name, parameter in model.named_parameters() if not parameter.all()}
    assert {name for name, _ in stored[REMOVED]["axes"]} == names
    path = folder / "listed.pth"
    save(path, Artifact(model.state_dict(), Arch("catanet", runs.TINY), None, stored))
    assert load(path).extra[REMOVED]["entries"].any()
