"""Taps read features inside a network without changing it."""

from __future__ import annotations

import pytest
import torch

from kdp.errors import KdpError
from kdp.models import build
from kdp.models.taps import Taps
from tests.conftest import TINY


def test_taps_collect_features_and_leave_the_network_unchanged() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).eval()
    x = torch.rand(1, 3, 12, 12)
    before = model(x)
    with Taps(model, ["mid_convs.0", "blocks.1.0.mlp"]) as features:
        during = model(x)
    after = model(x)
    torch.testing.assert_close(during, before)
    torch.testing.assert_close(after, before)
    assert {name: tuple(f.shape) for name, f in features.items()} == {
        "mid_convs.0": (1, 8, 12, 12),
        "blocks.1.0.mlp": (1, 8, 12, 12),
    }
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_are_removed_after_a_failed_forward() -> None:
    model = build("catanet", **TINY)
    with pytest.raises(RuntimeError), Taps(model, ["mid_convs.0"]):
        model(torch.rand(1, 5, 12, 12))
    assert not any(module._forward_hooks for module in model.modules())


def test_an_unknown_tap_suggests_the_nearest_module() -> None:
    with pytest.raises(KdpError, match=r"'mid_conv.1'.*did you mean 'mid_convs.1'"):
        Taps(build("catanet", **TINY), ["mid_conv.1"])


def test_a_module_that_returns_no_tensor_cannot_be_tapped() -> None:
    model = build("catanet", **TINY)
    taps = Taps(model, ["blocks.0.0.irca_attn"])
    with pytest.raises(KdpError, match=r"'blocks.0.0.irca_attn': it returns a tuple"), taps:
        model(torch.rand(1, 3, 12, 12))
