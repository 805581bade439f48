"""Arguments of networks: a wrong one is named in one line, the smallest ones run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdp.errors import KdpError
from kdp.models import build
from tests.conftest import TINY

MOBILE = {"stem": 4, "channels": [4, 6], "hidden": [6, 8], "strides": [[1, 1], [2, 2]]}
FACES = {"channels": [4, 6], "image_size": 16}
AUDIO = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 8,
    "num_mel_bins": 16,
    "patch_size": 4,
    "frames": 20,
}
NETWORKS = {
    "catanet": TINY,
    "rep_mobile": MOBILE,
    "cp_mobile": MOBILE,
    "mask_classifier": FACES,
    "audio_transformer": AUDIO,
}
WRONG: list[tuple[str, str, Any]] = [
    ("catanet", "dim", -8),
    ("catanet", "dim", "8"),
    ("catanet", "dim", 0),
    ("catanet", "upscale", 2.0),
    ("catanet", "tab_heads", True),
    ("catanet", "tab_heads", [1, -1]),
    ("catanet", "lrsa_neurons", ["6", "6"]),
    ("catanet", "qk_head_dim", 0),
    ("catanet", "v_head_dim", [4]),
    ("catanet", "patch_sizes", [2, 8]),
    ("catanet", "patch_sizes", []),
    ("catanet", "group_sizes", [1.5, 2.5]),
    ("catanet", "num_tokens", "ab"),
    ("catanet", "n_iters", None),
    ("catanet", "ema_decay", float("nan")),
    ("rep_mobile", "strides", [[1, 1], [0, 0]]),
    ("rep_mobile", "strides", [[1, 1], [2, 2, 2]]),
    ("cp_mobile", "strides", [[1, 1], ["a", 2]]),
    ("cp_mobile", "channels", [-4, 6]),
    ("cp_mobile", "hidden", []),
    ("rep_mobile", "stem", 2.5),
    ("rep_mobile", "fused", "yes"),
    ("rep_mobile", "classes", "ab"),
    ("mask_classifier", "channels", [4, -6]),
    ("mask_classifier", "channels", 4),
    ("mask_classifier", "channels", []),
    ("mask_classifier", "dropout", float("nan")),
    ("mask_classifier", "dropout", 1.5),
    ("mask_classifier", "classes", ["one", 2]),
    ("mask_classifier", "image_size", 16.0),
    ("audio_transformer", "hidden_size", "12"),
    ("audio_transformer", "num_attention_heads", -1),
    ("audio_transformer", "frames", 3),
    ("audio_transformer", "num_mel_bins", 2),
    ("audio_transformer", "patch_size", 0),
    ("audio_transformer", "qkv_bias", 1),
]


@pytest.mark.parametrize(("name", "argument", "value"), WRONG)
def test_a_wrong_argument_is_named(name: str, argument: str, value: Any) -> None:
    with pytest.raises(KdpError, match=argument) as raised:
        build(name, **{**NETWORKS[name], argument: value})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("catanet", "patch_sizes", [3, 3]),
        ("catanet", "num_tokens", [1, 1]),
        ("catanet", "tab_heads", 0),
        ("catanet", "n_iters", 0),
        ("rep_mobile", "strides", [[1, 1], [100, 100]]),
        ("cp_mobile", "channels", [1, 1]),
        ("mask_classifier", "dropout", 0),
        ("audio_transformer", "frames", 4),
    ],
)
def test_the_smallest_arguments_run(name: str, argument: str, value: Any) -> None:
    model = build(name, **{**NETWORKS[name], argument: value})
    channels = 1 if name in ("rep_mobile", "cp_mobile", "audio_transformer") else 3
    x = torch.rand(2, channels, 16, 16)
    model(x).sum().backward()
    assert model.eval()(x).isfinite().all()
