"""Mobile networks for acoustic scenes: size, branches and fusing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchinfo
from torch import nn

from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config
from kdp.errors import KdpError
from kdp.models import build, fuse
from kdp.models.loading import load_network
from kdp.models.reparam import RepConv
from kdp.stages.prune.rebuild import rebuild
from kdp.types import Arch

SECOND = (1, 1, 256, 65)
"""Log-mel of one second of sound."""
BYTES, MACS = 128_000, 30_000_000


def lively(name: str, **args: Any) -> nn.Module:
    """A network in eval mode with batch statistics far from the identity."""
    torch.manual_seed(0)
    model = build(name, **args)
    for _ in range(3):
        model(2 * torch.randn(4, 1, 64, 33) + 1)
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def counted(model: nn.Module) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for a second of sound as torchinfo counts them."""
    totals = torchinfo.summary(model, SECOND, verbose=0)
    return int(totals.total_params), int(totals.total_mult_adds)


def test_cp_mobile_is_exactly_the_baseline() -> None:
    assert counted(build("cp_mobile")) == (61_148, 29_419_156)


def test_fused_rep_mobile_is_within_the_limits_and_below_the_baseline() -> None:
    parameters, macs = counted(build("rep_mobile", fused=True))
    assert 2 * parameters <= BYTES
    assert macs <= MACS
    assert (parameters, macs) < (61_148, 29_419_156)
    assert macs <= 29_419_156


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
def test_branches_are_fused_into_one_convolution(groups: int, stride: tuple[int, int]) -> None:
    torch.manual_seed(0)
    rep = RepConv(6, 6, stride, groups).double()
    for _ in range(3):
        rep(torch.randn(4, 6, 9, 7, dtype=torch.float64))
    kernel, bias = rep.eval().fuse()
    assert (rep.identity is not None) == (stride == (1, 1))
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64)
    fused = torch.nn.functional.conv2d(x, kernel, bias, stride, 1, 1, groups)
    torch.testing.assert_close(fused, rep(x))


@pytest.mark.parametrize("name", ["cp_mobile", "rep_mobile"])
def test_fusing_keeps_the_output(name: str) -> None:
    model = lively(name)
    small, arch = fuse(model, Arch(name, {}))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in small.modules())
    assert arch == Arch(name, {"fused": True})
    x = torch.randn(SECOND)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
    assert counted(small)[0] < counted(model)[0]


def test_fusing_twice_changes_nothing() -> None:
    small, arch = fuse(lively("rep_mobile"), Arch("rep_mobile", {}))
    again, same = fuse(small, arch)
    assert again is small
    assert same is arch


def saved(folder: Path, name: str) -> Config:
    """A configuration of a chain that does not prune, and its trained network."""
    model = lively(name)
    artifact = Artifact(model.state_dict(), Arch(name, {}), make_record("train", {}))
    save(folder / "w" / "mobile.pth", artifact)
    return Config.model_validate({"output": {"name": "mobile", "dir": str(folder / "w")}})


def test_rebuild_fuses_an_unpruned_network(tmp_path: Path) -> None:
    done = rebuild(saved(tmp_path, "rep_mobile"))
    assert done.difference < 1e-5
    assert done.parameters < done.full_parameters
    small, arch, _ = load_network(done.path)
    assert arch.args["fused"]
    assert counted(small)[0] == done.parameters
    with pytest.raises(KdpError, match="as small as it will be"):
        rebuild(saved(tmp_path, "rep_mobile"), source=done.path)
