"""`kdp infer` for super-resolution: every image becomes a larger one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kdp.config import Config
from kdp.data.images import ImageArray
from kdp.tasks.predictor import ENSEMBLE, InferOptions
from kdp.tasks.super_resolution.ensemble import ORIENTATIONS
from kdp.tasks.super_resolution.task import SuperResolution
from kdp.tasks.super_resolution.tiles import upscale_image
from kdp.types import Arch


@dataclass(frozen=True)
class Upscaled:
    """A super-resolved image."""

    output: ImageArray
    part_ms: Mapping[str, float] = field(default_factory=dict)

    def image(self, caption: str) -> ImageArray:
        """The output as it is: a caption would spoil it."""
        return self.output

    def plain(self) -> dict[str, Any]:
        height, width = self.output.shape[:2]
        return {"size": [height, width]}


class Upscaler:
    """Super-resolves images, in tiles where they are large.

    Args:
        model: in eval mode, on its device.
        arch: of the model.
        config: `tiles` is read.
        options: `ensemble`.
    """

    options = frozenset({ENSEMBLE})
    kind = "a super-resolution network"
    action = "super-resolve"
    # The network mirrors an image at its edges, which takes a second pixel.
    min_side = 2

    def __init__(self, model: nn.Module, arch: Arch, config: Config, options: InferOptions) -> None:
        self._model, self._task = model, SuperResolution(arch, config)
        self._ensemble = options.ensemble

    @property
    def folder_suffix(self) -> str:
        return f"x{self._task.scale}"

    def passes(self, image: ImageArray) -> int:
        """Counted by a stand-in for the network, on shapes alone, so that it cannot disagree with
        how tiles are really made."""
        calls: list[int] = []
        stand_in = nn.Upsample(scale_factor=self._task.scale)
        stand_in.register_forward_hook(lambda *_: calls.append(1))
        shape = torch.empty(3, *image.shape[:2], device="meta")
        upscale_image(stand_in, shape, self._task.scale, self._task.tiles_for(self._model))
        return len(calls) * (len(ORIENTATIONS) if self._ensemble else 1)

    def __call__(self, image: ImageArray) -> Upscaled:
        return Upscaled(self._task.upscale(self._model, image, self._ensemble))
