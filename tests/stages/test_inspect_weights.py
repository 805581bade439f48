"""`kdp inspect-weights`, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from kdp.artifacts import Artifact, make_record, read_parents, save
from kdp.cli import app
from kdp.errors import KdpError
from kdp.models import build
from kdp.text import printable
from kdp.types import Arch
from tests.conftest import TINY

ARCH = Arch("catanet", TINY)


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Path]:
    """A teacher, the network pruned from it, and its masks."""
    params = build("catanet", **TINY).state_dict()
    params["blocks.0.0.mlp.fn.fc1.weight"].fill_(1)
    teacher, pruned, masks = (tmp_path / f"{n}.pth" for n in ("teacher", "pruned", "masks"))
    metrics = {"Set5": {"psnr": 36.5, "ssim": 0.95}}
    save(teacher, Artifact(params, ARCH, make_record("train", {}, metrics=metrics)))
    params["blocks.0.0.mlp.fn.fc1.weight"][:2] = 0
    record = make_record("prune", {}, read_parents([teacher]), {"macs": 1000})
    save(pruned, Artifact(params, ARCH, record))
    kept = torch.tensor([False, False, True, True, True, True])
    name = "blocks.0.tab_neurons"
    extra = {"masks": {name: kept}, "scores": {name: torch.arange(6.0)}}
    save(masks, Artifact({}, ARCH, record, extra))
    return {"teacher": teacher, "pruned": pruned, "masks": masks}


def inspect(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["inspect-weights", *map(str, arguments)])
    if isinstance(result.exception, KdpError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_zeros_and_shapes_of_each_layer(chain: dict[str, Path], tmp_path: Path) -> None:
    inspect(chain["pruned"], "--output", tmp_path / "found.json")
    (summary,) = json.loads((tmp_path / "found.json").read_text())
    parts = {part["name"]: part for part in summary["parameters"]}
    network = build("catanet", **TINY)
    assert list(parts) == [name for name, _ in network.named_parameters()]
    fc1 = parts["blocks.0.0.mlp.fn.fc1.weight"]
    assert (fc1["shape"], fc1["zeros"], fc1["zero_rows"]) == ([6, 8], 16, 2)
    assert summary["buffer_elements"] == sum(buffer.numel() for buffer in network.buffers())


def test_provenance_goes_back_to_the_teacher(chain: dict[str, Path]) -> None:
    printed = inspect(chain["pruned"])
    assert printed.index("prune: kdp") < printed.index("train: kdp")
    assert str(chain["teacher"]) in printed
    assert "Set5 psnr 36.5" in printed


def test_numbers_per_group_are_in_the_json_only(tmp_path: Path) -> None:
    metrics = {"macs": 7, "kept_units": {"blocks.0": 3}, "val": {"bus as park": 2.0, "f1": 0.5}}
    params = build("catanet", **TINY).state_dict()
    path = tmp_path / "net.pth"
    save(path, Artifact(params, ARCH, make_record("prune", {}, metrics=metrics)))
    printed = inspect(path, "--no-layers", "--output", tmp_path / "inspection.json")
    assert "macs 7, val f1 0.5" in printed
    assert "blocks.0 3" not in printed
    (entry,) = json.loads((tmp_path / "inspection.json").read_text())
    assert entry["origin"]["metrics"]["kept_units blocks.0"] == 3
    assert entry["arch"] == {"name": "catanet", "args": TINY}


def test_masks_show_what_they_keep(chain: dict[str, Path]) -> None:
    printed = inspect(chain["masks"])
    line = next(line for line in printed.splitlines() if "blocks.0.tab_neurons" in line)
    assert line.split() == ["blocks.0.tab_neurons", "4", "6", "66.7", "0", "..", "5"]


def test_layers_show_for_a_single_file_or_on_request(chain: dict[str, Path]) -> None:
    two = chain["teacher"], chain["pruned"]
    assert "zero rows" in inspect(two[0])
    assert "zero rows" not in inspect(two[0], "--no-layers")
    assert "zero rows" not in inspect(*two)
    assert "zero rows" in inspect(*two, "--layers")


def test_foreign_checkpoints_can_be_read(tmp_path: Path) -> None:
    torch.save({"params": build("catanet").state_dict()}, tmp_path / "x2.pth")
    printed = inspect(tmp_path / "x2.pth", "--no-layers")
    assert "477,435" in printed
    assert "not written by kdp" in printed


def test_unknown_networks_can_be_read(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.eye(3), "steps": torch.tensor(5)}, tmp_path / "other.pth")
    inspect(tmp_path / "other.pth", "--output", tmp_path / "found.json")
    (summary,) = json.loads((tmp_path / "found.json").read_text())
    assert (summary["arch"], summary["parameters"][0]["zeros"], summary["buffer_elements"]) == (
        None,
        6,
        1,
    )


def test_a_network_that_is_nearly_known_can_be_read(tmp_path: Path) -> None:
    params = {n: t for n, t in build("catanet").state_dict().items() if "upconv" not in n}
    torch.save(params, tmp_path / "part.pth")
    assert "not written by kdp" in inspect(tmp_path / "part.pth", "--no-layers")


def test_truncated_file_is_named(chain: dict[str, Path]) -> None:
    data = chain["pruned"].read_bytes()
    chain["pruned"].write_bytes(data[: len(data) // 2])
    with pytest.raises(KdpError, match=r"pruned\.pth is truncated"):
        inspect(chain["pruned"])


@pytest.mark.parametrize("name", ["\x1b[2J", "[/]", "[red]x", "\x9b31m"])
def test_names_of_layers_are_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name.replace('/', '')}.pth"
    torch.save({f"{name}.weight": torch.ones(2)}, path)
    output = inspect(path)
    assert "\x1b" not in output
    assert printable(name) in output
