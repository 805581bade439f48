"""A small convolutional network that classifies faces as masked or unmasked.

Every width is an argument, so that the teacher, its students and pruned networks share one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdp.models.arguments import Share, Size, check_classes, check_image_size

CLASSES = ("with_mask", "without_mask")
IMAGE_SIZE = 128
"""Side of the images that the shipped classifiers read, in pixels."""


class MaskClassifier(nn.Module):
    """Blocks of convolution 3x3, BatchNorm, ReLU and 2x2 max pooling, then one linear layer.

    Args:
        channels: of each block. (32, 64, 128) is the base, (24, 48, 96) and (8, 16, 32) the
            students.
        dropout: before the linear layer, 0..1.
        classes: their names, in the order of the logits.
        image_size: side of the images it is trained on, in pixels; kept beside the weights.

    Shapes: (B, 3, h, w) in 0..1 -> (B, classes) logits. h, w >= 2 ** blocks.

    Raises:
        ValueError: an argument is none of these.
    """

    def __init__(
        self,
        channels: Sequence[Size] = (32, 64, 128),
        dropout: Share = 0.2,
        classes: Sequence[str] = CLASSES,
        image_size: int = IMAGE_SIZE,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels must be one number or more")
        check_classes(classes, least=2)
        check_image_size(image_size, least=2 ** len(channels))
        self.classes, self.image_size = tuple(classes), image_size
        self.blocks = nn.Sequential(*(_block(*pair) for pair in pairwise([3, *channels])))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], len(classes))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # Channels last is faster for so few channels: on one CPU core 1.5x in training and 2x in
        # inference.
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        return self.head(self.dropout(self.blocks(x_BCHW).mean((2, 3))))


def _block(before: int, after: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
