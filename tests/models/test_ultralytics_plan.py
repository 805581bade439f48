"""Checkpoints whose network computes something else than the definition of its scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdp.errors import KdpError
from kdp.models.loading import load_network
from kdp.models.ultralytics_file import read_ultralytics
from tests.models.ultralytics_helpers import needs_ultralytics, network

pytestmark = needs_ultralytics


def forgetful(module: nn.Module, args: Any, output: Any) -> Any:
    """A hook."""
    return output * 0


def activation(layers: Any) -> None:
    for module in layers.modules():
        if isinstance(getattr(module, "act", None), nn.SiLU):
            module.act = nn.LeakyReLU(0.1)


def one_activation(layers: Any) -> None:
    layers[4].m[0].cv1.act = nn.Identity()


def another_layer(layers: Any) -> None:
    layers[3].act = nn.Hardswish()


def stride(layers: Any) -> None:
    layers[7].conv.stride = (1, 1)


def padding(layers: Any) -> None:
    layers[1].conv.padding_mode = "reflect"


def dilation(layers: Any) -> None:
    layers[5].conv.dilation, layers[5].conv.padding = (2, 2), (2, 2)


def upsampling(layers: Any) -> None:
    layers[11].mode = "bilinear"


def factor(layers: Any) -> None:
    layers[14].scale_factor = 1.0


def pooling(layers: Any) -> None:
    layers[9].m.kernel_size = 3


def source(layers: Any) -> None:
    layers[12].f = [-1, 4]


def epsilon(layers: Any) -> None:
    layers[0].bn.eps = 0.5


def shortcut(layers: Any) -> None:
    layers[2].m[0].add = False


def attention(layers: Any) -> None:
    layers[10].m[0].attn.scale = 1.0


def hook(layers: Any) -> None:
    layers[16].register_forward_hook(forgetful)


def method(layers: Any) -> None:
    layers[0].forward = layers[0].forward_fuse


def head_stride(layers: Any) -> None:
    layers[23].stride = torch.tensor([4.0, 8.0, 16.0])


def bins(layers: Any) -> None:
    layers[23].dfl.conv.weight.data.mul_(2)


CHANGES = {
    activation: "model.0.act is LeakyReLU in place of SiLU",
    one_activation: "model.4.m.0.cv1.act is Identity in place of SiLU",
    another_layer: "model.3.act is Hardswish in place of SiLU",
    stride: r"model.7.conv has stride=\(1, 1\) in place of \(2, 2\)",
    padding: "model.1.conv has padding_mode=reflect in place of zeros",
    dilation: r"model.5.conv has padding=\(2, 2\) in place of \(1, 1\)",
    upsampling: "model.11 has mode=bilinear in place of nearest",
    factor: "model.14 has scale_factor=1.0 in place of 2.0",
    pooling: "model.9.m has kernel_size=3 in place of 5",
    source: r"model.12 has f=\[-1, 4\] in place of \[-1, 6\]",
    epsilon: "model.0.bn has eps=0.5 in place of 0.001",
    shortcut: "model.2.m.0 has add=False in place of True",
    attention: "model.10.m.0.attn has scale=1.0 in place of 0.17",
    hook: "model.16 has a hook",
    method: "model.0 has its own forward",
    head_stride: r"model.23 has stride=\[4.0, 8.0, 16.0\] in place of \[8.0, 16.0, 32.0\]",
    bins: "model.23.dfl has weights other than 0, 1, 2",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_network_that_computes_something_else_is_refused(
    change: Callable[[Any], None], tmp_path: Path
) -> None:
    model = network()
    change(model.model)
    torch.save({"model": model}, tmp_path / "changed.pt")
    with pytest.raises(KdpError, match=f"changed.pt is not the yolo11n .*: {CHANGES[change]}"):
        load_network(tmp_path / "changed.pt")


@pytest.mark.parametrize("scale", ["n", "m"])  # m has other blocks
def test_a_used_network_is_read(scale: str, tmp_path: Path) -> None:
    """Running and freezing leave attributes behind that change nothing."""
    model = network(f"yolo11{scale}.yaml").eval().requires_grad_(False)
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = False
    torch.save({"model": model}, tmp_path / "used.pt")
    assert read_ultralytics(tmp_path / "used.pt")[1].args["scale"] == scale
