"""Mobile networks for acoustic scenes: CP-Mobile as the DCASE 2024 baseline has it, and RepMobile.

Shape suffixes: B batch, C channels, F frequency (mel bins), T time (frames).

CP-Mobile is by Schmid et al., who built the baseline system of DCASE 2024 Task 1 on it. RepMobile
is the same architecture with every 3x3 convolution trained as parallel branches. Fused, each
convolution has a bias instead of a normalisation, which makes it smaller than CP-Mobile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdp.data.mel_settings import MelArguments
from kdp.models.arguments import Size, Switch, check_classes
from kdp.models.reparam import Kind, Pair, convolution

SCENES = (
    "airport",
    "bus",
    "metro",
    "metro_station",
    "park",
    "public_square",
    "shopping_mall",
    "street_pedestrian",
    "street_traffic",
    "tram",
)
"""The classes of TAU Urban Acoustic Scenes 2022 Mobile."""
CHANNELS = (32, 32, 32, 56, 56, 104)
HIDDEN = (64, 64, 64, 64, 120, 120)
"""Channels grow by 1.8 from 32, and within a block by 2.1; all are rounded to multiples of 8."""
REP_HIDDEN = (56, 56, 64, 64, 120, 128)
"""Chosen so that the fused network, whose biases count as operations, needs no more MACs."""
STRIDES = ((1, 1), (1, 1), (1, 2), (2, 1), (1, 1), (1, 1))


Stride = Annotated[Sequence[Size], Field(min_length=2, max_length=2)]


class Mobile(nn.Module):
    """A stem of two strided convolutions, inverted-residual blocks, and an averaged 1x1 head.

    Args:
        kind: form of every convolution; see `kdp.models.reparam.convolution`.
        classes: their names, in the order of the logits.
        stem: channels after the first convolution.
        channels: after each block; the first is also that after the stem.
        hidden: channels within each block.
        strides: (frequency, time) of each block.

    Shapes: (B, 1, F, T) log-mel -> (B, classes) logits. F, T >= 1.
    """

    def __init__(
        self,
        kind: Kind,
        classes: Sequence[str],
        stem: int,
        channels: Sequence[int],
        hidden: Sequence[int],
        strides: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        check_classes(classes, least=2)
        if not channels or not len(channels) == len(hidden) == len(strides):
            raise ValueError("channels, hidden and strides need one entry per block")
        self.classes = tuple(classes)
        before = (channels[0], *channels[:-1])
        self.stem = nn.Sequential(
            convolution(kind, 1, stem, (3, 3), (2, 2)),
            nn.ReLU(),
            convolution(kind, stem, channels[0], (3, 3), (2, 2)),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            *(
                InvertedResidual(kind, here, within, after, (stride[0], stride[1]))
                for here, within, after, stride in zip(
                    before, hidden, channels, strides, strict=True
                )
            )
        )
        self.head = convolution(kind, channels[-1], len(classes), (1, 1))

    def forward(self, x_BCFT: Tensor) -> Tensor:
        # Depthwise convolutions are faster channels last on a CPU: 1.5x in training. The input has
        # one channel, which is the same in both layouts, so the stem's output is converted.
        x_BCFT = self.stem(x_BCFT).contiguous(memory_format=torch.channels_last)
        return self.head(self.blocks(x_BCFT)).mean((2, 3))


class InvertedResidual(nn.Module):
    """Expand by 1x1, depthwise 3x3, project by 1x1; a shortcut if the channel counts match."""

    def __init__(self, kind: Kind, before: int, hidden: int, after: int, stride: Pair) -> None:
        super().__init__()
        self.expand = convolution(kind, before, hidden, (1, 1))
        self.depthwise = convolution(kind, hidden, hidden, (3, 3), stride, groups=hidden)
        self.project = convolution(kind, hidden, after, (1, 1))
        self.shortcut = before == after
        self.stride = stride

    def forward(self, x_BCFT: Tensor) -> Tensor:
        y = self.project(F.relu(self.depthwise(F.relu(self.expand(x_BCFT)))))
        if self.shortcut:
            y = y + self._smaller(x_BCFT)
        return F.relu(y)

    def _smaller(self, x_BCFT: Tensor) -> Tensor:
        if self.stride == (1, 1):
            return x_BCFT
        return F.avg_pool2d(x_BCFT, 3, self.stride, padding=1)


def cp_mobile(
    classes: Sequence[str] = SCENES,
    stem: Size = 8,
    channels: Sequence[Size] = CHANNELS,
    hidden: Sequence[Size] = HIDDEN,
    strides: Sequence[Stride] = STRIDES,
    fused: Switch = False,
    log_mel: MelArguments = None,
) -> Mobile:
    """The baseline of DCASE 2024 Task 1: 61,148 parameters; see `Mobile`.

    `log_mel` says which spectrograms it was trained on, for its task: the network takes any size.
    """
    kind: Kind = "fused" if fused else "single"
    return Mobile(kind, classes, stem, channels, hidden, strides)


def rep_mobile(
    classes: Sequence[str] = SCENES,
    stem: Size = 8,
    channels: Sequence[Size] = CHANNELS,
    hidden: Sequence[Size] = REP_HIDDEN,
    strides: Sequence[Stride] = STRIDES,
    fused: Switch = False,
    log_mel: MelArguments = None,
) -> Mobile:
    """RepMobile: parallel branches until it is `fused`; see `Mobile` and `cp_mobile`."""
    kind: Kind = "fused" if fused else "branches"
    return Mobile(kind, classes, stem, channels, hidden, strides)
