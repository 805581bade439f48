"""Loading networks from artifacts and from other programs' checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdp.artifacts import Artifact, save
from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.types import Arch, Provenance
from tests.artifact_helpers import ARCH, catanet

SMALL: dict[str, Any] = {
    "dim": 6,
    "tab_heads": [4, 3, 2, 1, 0, 1, 2, 4],
    "tab_neurons": [5, 4, 3, 2, 1, 0, 7, 6],
    "lrsa_heads": [1, 0, 2, 1, 3, 1, 1, 1],
    "lrsa_neurons": [0, 2, 3, 4, 5, 6, 7, 8],
}
"""Widths of a pruned network whose patches, groups and head widths are the published ones."""


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("key", ["params", "params_ema", "state_dict", None])
def test_foreign_checkpoints_load_by_key(tmp_path: Path, key: str | None, scale: int) -> None:
    model = catanet(upscale=scale, **SMALL)
    weights = model.state_dict()
    path = tmp_path / "foreign.pth"
    torch.save({key: weights, "iter": 7} if key else weights, path)
    loaded, arch, _ = load_network(path)
    assert arch == Arch("catanet", {"upscale": scale, **SMALL})
    x = torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    weights = catanet(upscale=2, **SMALL).state_dict()
    averaged = {name: tensor * 0 for name, tensor in weights.items()}
    torch.save({"params": weights, "params_ema": averaged}, tmp_path / "both.pth")
    loaded, _, _ = load_network(tmp_path / "both.pth")
    assert not any(parameter.any() for parameter in loaded.parameters())


def test_the_prefix_of_data_parallel_training_is_removed(tmp_path: Path) -> None:
    weights = {f"module.{k}": v for k, v in catanet(upscale=2, **SMALL).state_dict().items()}
    torch.save(weights, tmp_path / "parallel.pth")
    assert load_network(tmp_path / "parallel.pth")[1].args["upscale"] == 2


def test_official_weights_load(shared: Path, tmp_path: Path) -> None:
    golden = torch.load(shared / "golden" / "catanet_x3.pt", weights_only=True)
    torch.save({"params": golden["state_dict"]}, tmp_path / "x3.pth")
    expected = Arch("catanet", {"upscale": 3, "tab_heads": 4, "lrsa_neurons": 96})
    model, arch, _ = load_network(tmp_path / "x3.pth", expected)
    assert arch.args["dim"] == 40
    assert sum(p.numel() for p in model.parameters()) == 549_635


@pytest.mark.parametrize("foreign", [True, False])
def test_an_unexpected_scale_is_rejected(tmp_path: Path, foreign: bool) -> None:
    params = catanet(upscale=2, **SMALL).state_dict()
    path = tmp_path / "x2.pth"
    if foreign:
        torch.save({"params": params}, path)
    else:  # the scale is the default of the network here, and not spelt out
        save(path, Artifact(params, Arch("catanet", SMALL)))
    with pytest.raises(KdpError, match=r"x2\.pth.*upscale=2.*upscale=3"):
        load_network(path, Arch("catanet", {"upscale": 3}))


def test_arguments_that_weights_do_not_reveal_are_the_expected_ones(tmp_path: Path) -> None:
    torch.save(catanet(upscale=2, **SMALL).state_dict(), tmp_path / "plain.pth")
    expected = Arch("catanet", {"upscale": 2, "group_sizes": [16] * 8})
    _, arch, _ = load_network(tmp_path / "plain.pth", expected)
    assert arch.args["group_sizes"] == [16] * 8


@pytest.mark.parametrize("lost", ["upconv.weight", "last_conv.weight", "blocks.3.0.norm.weight"])
def test_weights_with_a_part_missing_are_refused(tmp_path: Path, lost: str) -> None:
    weights = catanet(upscale=2, **SMALL).state_dict()
    del weights[lost]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(KdpError, match=r"part\.pth"):
        load_network(tmp_path / "part.pth")


def test_weights_of_an_unknown_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(KdpError, match=r"linear\.pth was not written by kdp"):
        load_network(tmp_path / "linear.pth")


def test_a_file_of_masks_is_not_a_network(tmp_path: Path) -> None:
    masks = {"blocks.0.tab_heads": torch.tensor([True, False])}
    save(tmp_path / "masks.pth", Artifact({}, ARCH, Provenance("prune"), {"masks": masks}))
    with pytest.raises(KdpError, match=r"masks\.pth holds no network.*kdp prune"):
        load_network(tmp_path / "masks.pth")


@pytest.mark.parametrize("args", [{"dim": 0}, {"dim": "x"}, {"no": 1}])
def test_a_network_that_cannot_be_built_names_its_file(
    tmp_path: Path, args: dict[str, Any]
) -> None:
    params = {"w": torch.zeros(1)}
    save(tmp_path / "odd.pth", Artifact(params, Arch("catanet", args), Provenance("train")))
    with pytest.raises(KdpError, match=r"odd\.pth: cannot build 'catanet'"):
        load_network(tmp_path / "odd.pth")
