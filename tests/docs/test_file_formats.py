"""docs/file-formats.md lists the keys that are written."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.measure.latency import Latency
from kdp.stages.chains import VERSION, Chain
from kdp.stages.compare.compare import Comparison, MeasuredNetwork
from kdp.stages.compare.rows import comparison_rows
from kdp.stages.compare.tables import to_json
from kdp.stages.experiments.results import COLUMNS, FILES
from kdp.stages.export.export import _description
from kdp.stages.prune.prune import prune
from kdp.stages.train.cache_targets import cache_targets
from kdp.stages.train.train import train
from kdp.tasks import family_of
from kdp.types import Arch, CodeSource
from tests.conftest import ROOT
from tests.models.face_mask_helpers import settings

DOC = (ROOT / "docs" / "file-formats.md").read_text()


def section(title: str) -> str:
    """The text below a heading, up to the next one of any level."""
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert match, f"docs/file-formats.md has no section {title}"
    return match[1]


def documented(title: str, column: int = 0, table: int = 0) -> list[str]:
    """The code words in a column of a table of a section, in order."""
    tables = re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE)
    rows = [line.strip().strip("|").split("|") for line in tables[table].splitlines()[2:]]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row[column])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short chain with every kind of artifact."""
    root = tmp_path_factory.mktemp("formats")
    config = settings(root, distill=None, finetune=None)
    train(config.model_copy(update={"experiments": _experiments(root)}))
    prune(settings(root, pruning_ratio=0.5, train=None))
    cache_targets(settings(root, model=None, finetune=None))
    return root


def _experiments(root: Path) -> Any:
    from kdp.config import ExperimentsConfig

    return ExperimentsConfig(folder=root / "experiments")


def content(folder: Path, pattern: str) -> dict[str, Any]:
    return dict(torch.load(next(folder.glob(pattern)), weights_only=True))


def extra(folder: Path, pattern: str) -> set[str]:
    """The keys of a file beside those of every artifact."""
    return content(folder, pattern).keys() - set(documented("Artifacts"))


def test_a_network_has_the_keys_of_an_artifact(folder: Path) -> None:
    artifact = content(folder, "w/tiny.pth")
    assert list(artifact) == documented("Artifacts")
    assert list(artifact["record"]) == documented("Record")
    assert f"| `version` | `{artifact['version']}` |" in section("Artifacts")


def test_an_architecture_has_these_keys() -> None:
    ints = {"attn": {"num_heads": 3}}
    arch = Arch("n", {}, CodeSource("a:b", "0"), {"w": (1,)}, ints, ({"name": "g"},))
    assert list(arch.plain()) == documented("Architecture")


def test_masks_and_scores_have_these_keys(folder: Path) -> None:
    assert extra(folder, "w/*_pruning_masks.pth") == set(documented("Masks"))
    budget = content(folder, "w/*_pruning_masks.pth")["budget"]
    named = set(re.findall(r"`(\w+)`", section("Masks").rpartition("`budget` has")[2]))
    assert named <= budget.keys()
    assert extra(folder, "w/*_scores_*.pth") == set(documented("Importance scores"))


def test_a_checkpoint_has_these_keys(folder: Path) -> None:
    (key,) = extra(folder, "runs/tiny_train/checkpoint.pth")
    state = content(folder, "runs/tiny_train/checkpoint.pth")[key]
    assert state.keys() == set(documented("Training checkpoints")) - {"scaler"}


def test_cached_targets_have_these_keys(folder: Path) -> None:
    index = next((folder / "runs").glob("**/index.pth"))
    rows = list(
        zip(
            documented("Cached teacher outputs"),
            documented("Cached teacher outputs", 1),
            strict=True,
        )
    )
    for name, pattern in (("NNNNNN.pth", "000000.pth"), ("index.pth", "index.pth")):
        keys = {key for file, key in rows if file == name}
        assert extra(index.parent, pattern) == keys


def test_an_experiment_has_these_files_and_keys(folder: Path) -> None:
    files = [name.removeprefix("<id>/") for name in documented("Experiments")]
    assert files == ["results.csv", *FILES]
    info = json.loads(next((folder / "experiments").glob("*/info.json")).read_text())
    assert info.keys() == set(documented("Experiments", table=1))
    columns = section("Experiments").partition("Columns of `results.csv`:")[2].partition(".")[0]
    assert tuple(re.findall(r"`(\w+)`", columns)) == COLUMNS


def test_a_chain_has_these_keys() -> None:
    chain = Chain(Path("c.yml"), (), Path("w"), "net", "prune", "2030-01-02T03:04:05Z", True)
    assert list(chain.plain()) == documented("Chains", table=1)
    assert f"| `version` | `{VERSION}` |" in section("Chains")


def test_a_comparison_has_these_keys() -> None:
    names = [field.name for field in fields(MeasuredNetwork)]
    values = dict.fromkeys(names, 1) | {
        "arch": Arch("mask_classifier", {}),
        "quality": {"val": {"f1": 0.5}},
        "latency": Latency(1.0, 1.0, 1.0, 1, 1.0),
    }
    shapes = (1, 3, 8, 8), (1, 3, 8, 8)
    network = MeasuredNetwork(**values)  # type: ignore[arg-type]
    comparison = Comparison([network], "", {"val": 1}, "", "", *shapes, 1, "cpu")
    written = json.loads(to_json(comparison))
    assert written.keys() == set(documented("Comparisons"))
    (columns, *_, row_words) = re.findall(r"^\|.*\n", section("Comparisons"), re.MULTILINE)[2:]
    assert set(re.findall(r"`(\w+)`", columns)) == {"columns", *names}
    assert comparison_rows(comparison)[0].plain().keys() < set(re.findall(r"`(\w+)`", row_words))
    assert set(asdict(network.latency)) <= set(re.findall(r"`(\w+)`", section("Comparisons")))


def test_exported_files_have_these_keys(folder: Path) -> None:
    from kdp.models.loading import load_network

    file = folder / "w" / "tiny.pth"
    model, arch, _ = load_network(file)
    spec = family_of(arch).export_spec(arch, settings(folder))
    written = [*_description(file, model, spec), "precision", "weight_bytes"]
    keys = documented("ONNX metadata")
    assert [key for key in keys if key not in {"name", "sha256"}] == written
