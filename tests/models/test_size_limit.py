"""Networks that are too large, or do not fit their weights, are refused before they are built."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import Artifact, save
from kdp.errors import KdpError
from kdp.models import build
from kdp.models.loading import load_network
from kdp.types import Arch
from tests.conftest import TINY

TOO_LARGE = [
    ("mask_classifier", {"channels": [60000, 60000]}),
    ("mask_classifier", {"channels": [10**12]}),
    ("mask_classifier", {"channels": [2**62, 2**62]}),
    ("mask_classifier", {"channels": [1] * 20}),
    ("mask_classifier", {"image_size": 10**6}),
    ("mask_classifier", {"classes": [str(i) for i in range(10**5)], "channels": [3000]}),
    ("catanet", {**TINY, "dim": 100_000}),
    ("catanet", {**TINY, "num_tokens": [10**9, 10**9]}),
    ("catanet", {**TINY, "patch_sizes": [10**6, 8]}),
    ("catanet", {key: [8] * 4000 for key in ("patch_sizes", "num_tokens", "group_sizes")}),
    ("audio_transformer", {"hidden_size": 60000, "num_attention_heads": 1}),
    ("audio_transformer", {"num_hidden_layers": 10**9}),
    ("audio_transformer", {"frames": 10**8}),
]


@pytest.mark.parametrize(("name", "args"), TOO_LARGE)
def test_a_network_that_is_too_large_is_not_built(name: str, args: dict[str, Any]) -> None:
    if name == "audio_transformer":
        pytest.importorskip("transformers")
        build(name)  # importing it takes seconds
    started = time.perf_counter()
    with pytest.raises(KdpError, match="cannot build"):
        build(name, **args)
    assert time.perf_counter() - started < 10  # seconds; it is much less on a quiet machine


@pytest.mark.parametrize("channels", [[4], [9000, 9000], [4, 8, 16]])
def test_weights_are_compared_before_anything_is_built(
    tmp_path: Path, channels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = build("mask_classifier", channels=[4, 8]).state_dict()
    path = tmp_path / "w.pth"
    save(path, Artifact(params, Arch("mask_classifier", {"channels": channels})))
    monkeypatch.setattr("kdp.models.loading.build", lambda name, **args: pytest.fail("built"))
    with pytest.raises(KdpError, match=r"does not fit|cannot build"):
        load_network(path)


def test_the_check_draws_no_random_numbers() -> None:
    def weights() -> torch.Tensor:
        torch.manual_seed(0)
        return next(build("mask_classifier", channels=[3, 7]).parameters())

    assert torch.equal(weights(), weights())  # the second one is not checked again
