"""CATANet against tensors of the original program and a slow reference implementation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdp.models import build, catanet_tab
from kdp.models.catanet import CATANet
from tests.conftest import TINY

Params = dict[str, Tensor]


@pytest.fixture
def unstable_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order tokens as the original does.

    It sorts without `stable=True`, which orders the tokens of one centre differently and so moves
    the borders between groups; everything else must agree.
    """
    monkeypatch.setattr(catanet_tab, "order_tokens", lambda nearest: nearest.argsort(dim=-1))


def _golden(shared: Path, scale: int) -> tuple[dict[str, Any], CATANet]:
    golden = torch.load(shared / "golden" / f"catanet_x{scale}.pt", weights_only=True)
    model = build("catanet", upscale=golden["upscale"]).double().eval()
    assert isinstance(model, CATANet)
    model.load_state_dict(golden["state_dict"], strict=True)
    return golden, model


@pytest.mark.usefixtures("unstable_order")
@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_outputs_agree_with_the_original(shared: Path, scale: int) -> None:
    golden, model = _golden(shared, scale)
    cases = [case for case in golden["cases"] if not case["overlap_quirk"]]
    assert cases
    for case in cases:
        torch.testing.assert_close(model(case["x"]), case["y"], rtol=0, atol=1e-8)


@pytest.mark.usefixtures("unstable_order")
@torch.no_grad()
def test_features_agree_with_the_original(shared: Path) -> None:
    golden, model = _golden(shared, 2)
    case = next(case for case in golden["cases"] if "mid_conv_outputs" in case)
    features: list[Tensor] = []
    for conv in model.mid_convs:
        conv.register_forward_hook(lambda _m, _i, output: features.append(output))
    model(case["x"])
    assert len(features) == len(case["mid_conv_outputs"]) == 8
    for feature, expected in zip(features, case["mid_conv_outputs"], strict=True):
        # They are stored in float32.
        torch.testing.assert_close(feature, expected.double(), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("unstable_order")
@torch.no_grad()
def test_training_steps_agree_with_the_original(shared: Path) -> None:
    golden, model = _golden(shared, 2)
    model.train()
    for tab, _ in model.blocks:
        tab.initted.fill_(False)
    for step in golden["train_steps"]["steps"]:
        y = model(golden["train_steps"]["x"])
        torch.testing.assert_close(y, step["y"], rtol=0, atol=1e-8)
        for name, means in step["means"].items():
            torch.testing.assert_close(model.state_dict()[name], means, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("scale", "size"), [(2, (12, 17)), (3, (10, 10)), (4, (21, 11))])
@torch.no_grad()
def test_outputs_agree_with_the_definition(scale: int, size: tuple[int, int]) -> None:
    model = _random_network(scale)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(model(x), _Plain(model).network(x), rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_network_without_centres_takes_segment_means() -> None:
    model = _random_network(2)
    for tab, _ in model.blocks:
        tab.initted.fill_(False)
    x = torch.rand(2, 3, 12, 13, dtype=torch.float64)
    torch.testing.assert_close(model(x), _Plain(model).network(x), rtol=0, atol=1e-10)


@torch.no_grad()
def test_training_steps_agree_with_the_definition() -> None:
    model = _random_network(2).train()
    for tab, _ in model.blocks:
        tab.initted.fill_(False)
    plain = _Plain(model)
    for _ in range(2):
        x = torch.rand(2, 3, 11, 14, dtype=torch.float64)
        torch.testing.assert_close(model(x), plain.network(x, training=True), rtol=0, atol=1e-10)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(value, plain.params[name], rtol=0, atol=1e-10)


def _random_network(scale: int) -> CATANet:
    """A tiny network in float64 whose parts all matter: weights and biases of order one."""
    torch.manual_seed(scale)
    model = build("catanet", **{**TINY, "upscale": scale}).double().eval()
    assert isinstance(model, CATANet)
    for name, parameter in model.named_parameters():
        width = parameter[0].numel() if parameter.ndim > 1 else 4
        torch.nn.init.normal_(parameter, std=width**-0.5)
        if name.endswith("norm.weight"):
            parameter.data += 1
    for tab, _ in model.blocks:
        tab.means.normal_()
        tab.initted.fill_(True)
    return model


class _Plain:
    """CATANet by its definition, one token, head, group and patch at a time."""

    def __init__(self, model: CATANet) -> None:
        self.params: Params = {name: v.clone() for name, v in model.state_dict().items()}
        self.scale, self.patch_sizes = model.upscale, TINY["patch_sizes"]
        self.heads, self.group_sizes = TINY["tab_heads"], TINY["group_sizes"]

    def network(self, x: Tensor, training: bool = False) -> Tensor:
        base = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        first = features = self.conv(x, "first_conv")
        for block, patch_size in enumerate(self.patch_sizes):
            y = self.tab(features, block, training)
            y = self.lrsa(y, f"blocks.{block}.1.layer", patch_size)
            features = features + self.conv(y, f"mid_convs.{block}")
        y = features + first
        steps = [("upconv1", 2), ("upconv2", 2)] if self.scale == 4 else [("upconv", self.scale)]
        for name, factor in steps:
            y = F.leaky_relu(F.pixel_shuffle(self.conv(y, name), factor), 0.1)
        return self.conv(y, "last_conv") + base

    def conv(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, self.params[f"{name}.weight"], self.params[f"{name}.bias"], padding=1)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.params[f"{name}.weight"].T + self.params.get(f"{name}.bias", 0)

    def norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.params[f"{name}.weight"] + self.params[f"{name}.bias"]

    def tab(self, x: Tensor, block: int, training: bool) -> Tensor:
        name = f"blocks.{block}.0"
        tokens = self.norm(_tokens(x), f"{name}.norm")
        centres = self.centres(tokens, name, training)
        out = torch.stack([self.iasa(t, centres, name, self.group_sizes[block]) for t in tokens])
        conv1x1 = self.params[f"{name}.conv1x1.weight"]
        x = x + F.conv2d(_map(out, x), conv1x1)
        return x + self.ffn(x, f"{name}.mlp")

    def centres(self, tokens: Tensor, name: str, training: bool) -> Tensor:
        known = bool(self.params[f"{name}.initted"])
        count = len(self.params[f"{name}.means"])
        centres = self.params[f"{name}.means"] if known else _segment_means(tokens, count)
        if not training:
            return centres
        for _ in range(5):
            centres = _refined(tokens.flatten(0, 1), centres)
        if known:
            self.params[f"{name}.means"] = 0.999 * self.params[f"{name}.means"] + 0.001 * centres
        else:
            self.params[f"{name}.means"] = centres
            self.params[f"{name}.initted"] = torch.tensor(True)
        return centres

    def iasa(self, tokens: Tensor, centres: Tensor, name: str, group_size: int) -> Tensor:
        """(N, C) -> (N, C) of one image: order, attend to group and centres, put back."""
        n = len(tokens)
        nearest = [int(F.cosine_similarity(t[None], centres).argmax()) for t in tokens]
        order = sorted(range(n), key=lambda i: nearest[i])
        size = min(n, group_size)
        mirrored = (order + order[::-1]) * (2 + 2 * size // n)
        out = torch.zeros(n, self.params[f"{name}.iasa_attn.to_v.weight"].shape[0]).double()
        for start in range(0, n, size):
            places = order[start : start + size]
            window = mirrored[start : start + 2 * size]
            q = self.linear(tokens[places], f"{name}.iasa_attn.to_q")
            out[places] = self.attention(q, tokens[window], f"{name}.iasa_attn") + self.attention(
                q, centres, f"{name}.irca_attn"
            )
        return self.linear(out, f"{name}.iasa_attn.proj")

    def attention(self, q: Tensor, source: Tensor, name: str) -> Tensor:
        """Queries (Q, heads * D) to the keys and values of `source`, head by head."""
        k, v = self.linear(source, f"{name}.to_k"), self.linear(source, f"{name}.to_v")
        heads = zip(*(t.chunk(self.heads, dim=-1) for t in (q, k, v)), strict=True)
        return torch.cat(
            [(q @ k.T / k.shape[-1] ** 0.5).softmax(-1) @ v for q, k, v in heads], dim=-1
        )

    def lrsa(self, x: Tensor, name: str, size: int) -> Tensor:
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for top in _starts(x.shape[2], size):
            for left in _starts(x.shape[3], size):
                place = (..., slice(top, top + size), slice(left, left + size))
                patch = x[place]
                tokens = self.norm(_tokens(patch), f"{name}.0.norm")
                attended = torch.stack([self.self_attention(t, f"{name}.0.fn") for t in tokens])
                total[place] += patch + _map(attended, patch)
                count[place] += 1
        x = total / count
        return x + self.ffn(x, f"{name}.1")

    def self_attention(self, tokens: Tensor, name: str) -> Tensor:
        out = self.attention(self.linear(tokens, f"{name}.to_q"), tokens, name)
        return self.linear(out, f"{name}.proj")

    def ffn(self, x: Tensor, name: str) -> Tensor:
        hidden = F.gelu(self.linear(self.norm(_tokens(x), f"{name}.norm"), f"{name}.fn.fc1"))
        conv = f"{name}.fn.dwconv.depthwise_conv.0"
        weight, bias = self.params[f"{conv}.weight"], self.params[f"{conv}.bias"]
        local = F.conv2d(_map(hidden, x), weight, bias, padding=2, groups=len(bias))
        return _map(self.linear(hidden + _tokens(F.gelu(local)), f"{name}.fn.fc2"), x)


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _map(tokens: Tensor, like: Tensor) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(like), -1, *like.shape[2:])


def _starts(side: int, size: int) -> Iterator[int]:
    """Patches step by size - 2; the one that would leave the image is moved back inside."""
    start = 0
    while start + size < side:
        yield start
        start += size - 2
    yield side - size


def _segment_means(tokens: Tensor, count: int) -> Tensor:
    missing = count - tokens.shape[1] % count
    padded = torch.cat([tokens, tokens[:, -missing:].flip(1)], dim=1)
    return torch.stack([part.mean(dim=(0, 1)) for part in padded.chunk(count, dim=1)])


def _refined(tokens: Tensor, centres: Tensor) -> Tensor:
    tokens, centres = F.normalize(tokens, dim=-1), F.normalize(centres, dim=-1)
    nearest = (tokens @ centres.T).argmax(-1)
    moved = centres.clone()
    for i in range(len(centres)):
        if (nearest == i).any():
            moved[i] = F.normalize(tokens[nearest == i].sum(0), dim=0)
    return moved
