"""Names of foreign weights: what a training wraps around a network is taken off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from tests.conftest import TINY, same_params

ARGS = {
    **TINY,
    "qk_head_dim": 9,
    "v_head_dim": 10,
    "patch_sizes": [16, 20, 24, 28] * 2,
    "num_tokens": [16, 32, 64, 128] * 2,
    "group_sizes": [256, 128, 64, 32] * 2,
}


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return build("catanet", **ARGS).state_dict()


def named(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "generator.", "net_g.", "module._orig_mod.", "model.net."],
)
def test_prefixes_are_taken_off(tmp_path: Path, weights: dict[str, Any], prefix: str) -> None:
    path = tmp_path / "foreign.pth"
    torch.save({"state_dict": named(weights, prefix)}, path)
    model, arch, _ = load_network(path)
    assert arch.name == "catanet"
    assert same_params(model.state_dict(), weights)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"params": weights, "params_ema": None},
        lambda weights: {"params": weights, "params_ema": {}},
        lambda weights: {"model_state_dict": weights, "epoch": 3},
        lambda weights: {"state_dict": None, "generator": weights},
        lambda weights: {**named(weights, "generator."), "discriminator.w": torch.ones(2)},
    ],
)
def test_weights_are_found_where_other_keys_are_empty(
    tmp_path: Path, weights: dict[str, Any], wrap: Any
) -> None:
    path = tmp_path / "foreign.pth"
    torch.save(wrap(weights), path)
    assert same_params(load(path).params, weights)


def test_numbered_layers_keep_their_names(tmp_path: Path) -> None:
    params = {"model.0.weight": torch.ones(2), "model.1.weight": torch.ones(2)}
    torch.save(params, tmp_path / "foreign.pth")
    assert load(tmp_path / "foreign.pth").params.keys() == params.keys()


@pytest.mark.parametrize("content", [{}, {"params_ema": None}, {"params": {}}, {"state_dict": {}}])
def test_a_file_without_weights_is_named(tmp_path: Path, content: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "foreign.pth")
    with pytest.raises(KdpError, match=r"foreign\.pth holds"):
        load(tmp_path / "foreign.pth")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.complex64])
def test_weights_of_another_kind_of_number_are_refused(
    tmp_path: Path, weights: dict[str, Any], dtype: torch.dtype
) -> None:
    changed = weights["first_conv.weight"].to(dtype)
    torch.save({**weights, "first_conv.weight": changed}, tmp_path / "foreign.pth")
    with pytest.raises(KdpError, match=r"first_conv\.weight holds torch"):
        load_network(tmp_path / "foreign.pth")
