"""CATANet beyond parity: any image size, any widths, no dependence on the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdp.errors import KdpError
from kdp.models import build
from kdp.models.attention import attend, true_widths
from kdp.models.catanet_tab import order_tokens
from tests.conftest import TINY

WIDTHS = ("tab_heads", "tab_neurons", "lrsa_heads", "lrsa_neurons")
NARROW: dict[str, Any] = {"dim": 8, "tab_heads": 1, "lrsa_heads": 1, "tab_neurons": 4}
"""The published patch sizes, token centres and groups at a width that is fast to run."""


def _trained(**args: Any) -> nn.Module:
    """A network in eval mode after one forward pass in training mode, which sets token centres."""
    torch.manual_seed(0)
    model = build("catanet", **args).train()
    with torch.no_grad():
        model(torch.rand(2, 3, 24, 24))
    return model.eval()


@torch.no_grad()
def test_the_output_does_not_depend_on_the_batch() -> None:
    model = _trained(**TINY).double()
    batch = torch.rand(3, 3, 20, 23, dtype=torch.float64)
    batch[1, :, 5:] = 0.5  # Flat: its tokens tie everywhere but for the border.
    together = model(batch)
    for image, output in zip(batch, together, strict=True):
        torch.testing.assert_close(model(image[None])[0], output, rtol=0, atol=1e-12)


def test_tokens_of_a_centre_stay_in_image_order() -> None:
    # Long enough for a sort that is not stable to show it.
    nearest = torch.randint(0, 3, (2, 5000), generator=torch.Generator().manual_seed(0))
    for line, order in zip(nearest.tolist(), order_tokens(nearest).tolist(), strict=True):
        assert order == sorted(range(5000), key=lambda i: line[i])


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (9, 13), (28, 47)])
@torch.no_grad()
def test_any_size_from_eight_pixels_is_accepted(size: tuple[int, int]) -> None:
    y = _trained(upscale=2, lrsa_neurons=4, **NARROW)(torch.rand(1, 3, *size))
    assert y.shape == (1, 3, 2 * size[0], 2 * size[1])
    assert y.isfinite().all()


@torch.no_grad()
def test_a_small_image_is_extended_by_reflection() -> None:
    model = _trained(**TINY).double()
    small = torch.rand(1, 3, 8, 9, dtype=torch.float64)
    extended = nn.functional.pad(small, (0, 1, 0, 2), mode="reflect")  # to the largest patch, 10
    torch.testing.assert_close(model(small), model(extended)[..., :16, :18], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_every_scale_has_its_output_size(scale: int) -> None:
    y = _trained(**{**TINY, "upscale": scale})(torch.rand(2, 3, 11, 14))
    assert y.shape == (2, 3, 11 * scale, 14 * scale)


@pytest.mark.parametrize(
    "change",
    [
        *({name: 0} for name in WIDTHS),
        dict.fromkeys(WIDTHS, 0),
        {"tab_heads": [0, 2], "tab_neurons": [6, 0], "lrsa_heads": [1, 0], "lrsa_neurons": [0, 3]},
    ],
)
def test_emptied_blocks_run_and_train(change: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = build("catanet", **{**TINY, **change}).train()
    x = torch.rand(2, 3, 12, 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = (model(x) - torch.ones(2, 3, 24, 24)).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    gradients = {name: p.grad for name, p in model.named_parameters() if p.numel()}
    dead = [name for name, g in gradients.items() if g is None or not g.isfinite().all()]
    assert not dead
    assert losses[-1] < losses[0]
    assert model.eval()(x[:1]).isfinite().all()


def test_every_parameter_of_a_full_network_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).train()
    model(torch.rand(2, 3, 12, 12)).square().mean().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


@pytest.mark.parametrize("change", [{"tab_heads": [1, 2, 3]}, {"upscale": 5}, {"lrsa_heads": -1}])
def test_impossible_widths_are_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(KdpError, match="cannot build 'catanet'"):
        build("catanet", **{**TINY, **change})


def test_an_unknown_network_lists_the_known_ones() -> None:
    with pytest.raises(KdpError, match="catanet"):
        build("catnet")


def test_padded_attention_equals_unpadded() -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(3, 2, n, 9, dtype=torch.float64, requires_grad=True) for n in (5, 7))
    v = torch.randn(3, 2, 7, 10, dtype=torch.float64, requires_grad=True)
    padded = _value_and_gradients(q, k, v)
    with true_widths():
        unpadded = _value_and_gradients(q, k, v)
    for tensor, expected in zip(padded, unpadded, strict=True):
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-12)


def _value_and_gradients(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    out = attend(q, k, v)
    return out, *torch.autograd.grad(out.square().sum(), (q, k, v))


def test_a_network_with_padded_attention_equals_one_without() -> None:
    model = _trained(**TINY).double()
    x = torch.rand(2, 3, 13, 18, dtype=torch.float64)
    padded = model(x)
    with true_widths():
        torch.testing.assert_close(model(x), padded, rtol=0, atol=1e-12)


def test_padded_attention_reaches_a_fused_kernel() -> None:
    model = _trained(**TINY)
    with torch.profiler.profile() as profile, torch.no_grad():
        model(torch.rand(1, 3, 16, 16))
    called = {event.key for event in profile.key_averages()}
    assert any("flash_attention" in name for name in called)
    assert not any("attention_math" in name for name in called)


def test_centres_are_updated_in_training_only() -> None:
    model = _trained(**TINY)
    before = {n: b.clone() for n, b in model.named_buffers() if n.endswith("means")}
    with torch.no_grad():
        model(torch.rand(1, 3, 12, 12))
        assert all(torch.equal(before[n], model.get_buffer(n)) for n in before)
        model.train()(torch.rand(1, 3, 12, 12))
    assert not any(torch.equal(before[n], model.get_buffer(n)) for n in before)
