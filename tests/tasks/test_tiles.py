"""Large images in overlapping tiles: bounded, close to the whole, without seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdp.data.pairs import embedded
from kdp.data.patches import to_tensor
from kdp.models import build
from kdp.tasks.super_resolution.section import TileConfig
from kdp.tasks.super_resolution.tiles import upscale_image
from tests.conftest import TINY


class _Nearest(nn.Module):
    """Nearest-neighbour upscaling that records its input sizes."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=self.scale)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("size", [(40, 100), (100, 40), (65, 64), (131, 97), (128, 112)])
def test_tiles_cover_every_pixel_and_fade_to_one(scale: int, size: tuple[int, int]) -> None:
    model, image = _Nearest(scale), torch.rand(3, *size)
    output = upscale_image(model, image, scale, TileConfig(size=64, overlap=16))
    expected = F.interpolate(image[None], scale_factor=scale)[0]
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    assert len(model.sizes) > 1


@pytest.mark.parametrize("overlap", [1, 16, 40, 63])
def test_the_network_never_runs_on_more_than_a_tile(overlap: int) -> None:
    model = _Nearest(2)
    upscale_image(model, torch.rand(3, 150, 90), 2, TileConfig(size=64, overlap=overlap))
    assert {size[0] for size in model.sizes} == {1}
    assert max(max(size[2:]) for size in model.sizes) == 64


def test_the_overlap_needs_no_extra_tiles() -> None:
    model = _Nearest(2)
    upscale_image(model, torch.rand(3, 360, 640), 2, TileConfig(size=256, overlap=32))
    assert len(model.sizes) == 2 * 3


def test_a_small_image_is_not_tiled() -> None:
    model = _Nearest(2)
    upscale_image(model, torch.rand(3, 64, 30), 2, TileConfig(size=64, overlap=16))
    assert model.sizes == [(1, 3, 64, 30)]


@pytest.mark.parametrize("size", [(8, 8), (80, 80)])
def test_the_output_is_clipped(size: tuple[int, int]) -> None:
    class Wild(_Nearest):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 4 - 2

    output = upscale_image(Wild(2), torch.rand(3, *size), 2, TileConfig(size=64, overlap=16))
    assert (output.min(), output.max()) == (0, 1)


def test_an_overlap_as_large_as_the_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        TileConfig(size=64, overlap=64)


def _astronaut(height: int, width: int) -> Tensor:
    """A crop full of detail: face, badge and cloth."""
    lr = embedded(2, validation=True)[0].lr()
    return to_tensor(np.ascontiguousarray(lr[20 : 20 + height, 60 : 60 + width]))


def _realistic() -> nn.Module:
    """CATANet-L after one training step; its TABs attend to the whole image."""
    torch.manual_seed(0)
    model = build("catanet", upscale=2).train()
    with torch.no_grad():
        model(_astronaut(32, 32)[None])
    return model.eval()


def _jump(difference: Tensor, lines: list[int], dim: int) -> tuple[float, float]:
    """Mean step of the error across given lines of pixels, and across all the others."""
    steps = difference.diff(dim=dim).abs().mean(dim=[d for d in range(3) if d != dim])
    at = torch.zeros(len(steps), dtype=torch.bool)
    at[[line - 1 for line in lines]] = True
    return float(steps[at].mean()), float(steps[~at].mean())


@torch.no_grad()
def test_seams_do_not_stand_out() -> None:
    model, image = _realistic(), _astronaut(80, 96)
    whole = model(image[None])[0].clamp(0, 1)
    difference = upscale_image(model, image, 2, TileConfig(size=56, overlap=16)) - whole
    assert difference.abs().max() > 1e-3, "tiles change nothing, so that this test shows nothing"
    # Tiles reach from 0 to 56 and from 24 to 80, and from 0 to 56 and from 40 to 96.
    for dim, lines in ((1, [24, 56]), (2, [40, 56])):
        at, elsewhere = _jump(difference, [2 * line for line in lines], dim)
        # Without a fade it is seven times as much.
        assert at <= 1.1 * elsewhere


@torch.no_grad()
def test_tiles_match_the_whole_image_closely() -> None:
    torch.manual_seed(0)
    model = build("catanet", **TINY).train()
    image = _astronaut(120, 180)
    model(image[None])
    model.eval()
    whole = model(image[None])[0].clamp(0, 1)
    tiled = upscale_image(model, image, 2, TileConfig(size=64, overlap=16))
    plain = F.interpolate(image[None], scale_factor=2, mode="bilinear")[0]
    assert (tiled - whole).abs().mean() < 0.01 * (plain - whole).abs().mean()
