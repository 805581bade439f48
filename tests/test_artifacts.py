"""Artifacts: what they hold, earlier versions, and their records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdp.artifacts import Artifact, load, make_record, read_parents, save
from kdp.files import sha256
from kdp.models.loading import load_network
from kdp.models.onnx_file import OnnxNetwork
from kdp.shipped import WEIGHTS
from kdp.types import Arch, CodeSource, Parent, Provenance, RunTime
from tests.artifact_helpers import ARCH, EMPTY_ARTIFACT, RunsCode, catanet
from tests.conftest import ROOT, TINY, same_params


def test_an_artifact_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    model = catanet(**TINY)
    masks = {"blocks.0.tab_heads": torch.tensor([True, False])}
    record = make_record("train", {"seed": 3}, metrics={"set5": {"psnr": 36.5}})
    save(tmp_path / "a.pth", Artifact(model.state_dict(), ARCH, record, {"masks": masks}))
    loaded, arch, artifact = load_network(tmp_path / "a.pth", ARCH)
    assert (arch, artifact.record) == (ARCH, record)
    assert artifact.extra.keys() == {"masks"}
    assert torch.equal(artifact.extra["masks"]["blocks.0.tab_heads"], torch.tensor([True, False]))
    assert same_params(loaded.state_dict(), model.state_dict())


def test_a_foreign_network_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    arch = Arch(
        "net.py:build",
        {"depth": 2},
        source=CodeSource("net.py:build", "0" * 64),
        shapes={"fc1.weight": (6, 4)},
        attributes={"attn": {"num_heads": 3, "window": (2, 4)}},
        groups=({"name": "attn", "units": 3},),
    )
    save(tmp_path / "a.pth", Artifact({"w": torch.ones(1)}, arch))
    assert load(tmp_path / "a.pth").arch == arch
    assert Arch.from_plain(json.loads(json.dumps(arch.plain()))) == arch


def test_a_built_in_network_is_saved_as_name_and_arguments(tmp_path: Path) -> None:
    save(tmp_path / "a.pth", Artifact({"w": torch.ones(1)}, Arch("catanet", {"upscale": 2})))
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content["version"] == 2
    assert content["arch"] == {"name": "catanet", "args": {"upscale": 2}}


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    old = {
        "stage": "prune",
        "command": "kdp prune",
        "config": {"seed": 5},
        "seed": 5,
        "versions": {"kdp": "0.1"},
        "device": "cpu",
        "git_commit": None,
        "parents": [{"path": "t.pth", "sha256": "0" * 64, "record": {}}],
        "metrics": {"macs": 7},
        "time": {"finished": 1.5, "seconds": None},
    }
    content = {
        **EMPTY_ARTIFACT,
        "version": 1,
        "params": {"w": torch.ones(2)},
        "record": old,
        "masks": {},
    }
    torch.save({**content, "arch": {"name": "catanet", "args": TINY}}, tmp_path / "old.pth")
    artifact = load(tmp_path / "old.pth")
    assert (artifact.arch, artifact.extra) == (ARCH, {"masks": {}})
    assert artifact.record is not None
    assert artifact.record.parents == (Parent("t.pth", "0" * 64),)
    assert artifact.record.time == RunTime(1.5)
    assert artifact.record.plain() == old


@pytest.mark.parametrize("name", WEIGHTS)
def test_shipped_weights_of_version_1_are_read(name: str) -> None:
    path = ROOT / "weights" / name
    content = torch.load(path, weights_only=True)
    assert content["version"] == 1, "rewritten: keep a file of version 1 for this test"
    model, _, artifact = load_network(path)
    assert same_params(model.state_dict(), content["params"])
    assert artifact.record is not None
    assert artifact.record.plain() == content["record"]


def test_the_record_leads_back_to_the_teacher(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pth" for name in ("teacher", "pruned", "finetuned")]
    for stage, path, parents in zip(
        ("train", "prune", "finetune"), paths, ([], paths[:1], paths[1:2]), strict=True
    ):
        params = {"w": torch.full((2,), len(str(path)))}
        save(path, Artifact(params, ARCH, make_record(stage, {"seed": 5}, read_parents(parents))))
    record = load(paths[-1]).record
    chain = []
    for path in reversed(paths[:-1]):
        (parent,) = record.parents
        assert parent.sha256 == sha256(path)
        record = parent.record
        chain.append(record.stage)
    assert chain == ["prune", "train"]
    assert record.parents == ()
    assert record.seed == 5
    assert record.versions.keys() == {"kdp", "torch", "python"}


def test_a_foreign_file_can_be_a_parent(tmp_path: Path) -> None:
    """Ultralytics pickles whole networks, which kdp reads without unpickling them."""
    torch.save({"model": RunsCode(tmp_path / "harm was done")}, tmp_path / "theirs.pt")
    (parent,) = make_record("prune", {}, read_parents([tmp_path / "theirs.pt"])).parents
    assert (parent.record, len(parent.sha256)) == (None, 64)


def test_a_stage_of_an_earlier_version_has_its_name_of_today() -> None:
    parent = {"path": "index.pth", "sha256": "0", "record": {"stage": "teach"}}
    record = Provenance.from_plain({"stage": "teach", "parents": [parent]})
    assert record.stage == "cache-targets"
    assert record.parents[0].record == Provenance("cache-targets")


def test_an_ancestor_on_two_paths_is_recorded_once(tmp_path: Path) -> None:
    teacher, pruned, tuned = (tmp_path / f"{name}.pth" for name in ("teacher", "pruned", "tuned"))
    for path, parents in ((teacher, []), (pruned, [teacher]), (tuned, [pruned, teacher])):
        record = make_record("train", {"seed": 5}, read_parents(parents))
        save(path, Artifact({"w": torch.full((2,), len(str(path)))}, ARCH, record))
    first, second = load(tuned).record.parents
    assert first.record.parents[0].record.seed == 5
    assert second.sha256 == first.record.parents[0].sha256
    assert second.record == Provenance("train", first.record.command)
    plain = torch.load(tuned, weights_only=True)["record"]["parents"][1]["record"]
    assert plain.keys() == {"stage", "command"}


@pytest.mark.parametrize(
    ("about", "record", "precision"),
    [
        ({}, Provenance("export"), "fp32"),
        (
            {"kdp": "0.1", "precision": "int8", "source": {"name": "a.pth", "sha256": "0" * 64}},
            Provenance("export", versions={"kdp": "0.1"}, parents=(Parent("a.pth", "0" * 64),)),
            "int8",
        ),
    ],
)
def test_an_exported_file_has_a_record(
    about: dict[str, Any], record: Provenance, precision: str
) -> None:
    """Files of earlier versions lack some of the metadata."""
    network = OnnxNetwork.__new__(OnnxNetwork)  # without a session, which the record needs not
    nn.Module.__init__(network)
    network.about = about
    assert (network.record, network.precision) == (record, precision)
