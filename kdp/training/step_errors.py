"""Why a training step cannot be taken, in words that name the cause."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from kdp.errors import KdpError
from kdp.finite import first_nonfinite
from kdp.training.loading import LoadingError


@contextmanager
def batch_norm_explained(batch_size: int) -> Iterator[None]:
    """Say what to change where a BatchNorm cannot normalise a batch.

    Args:
        batch_size: samples of the batches that the block runs on.

    Raises:
        KdpError: a BatchNorm gets one value per channel.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise KdpError(
            f"batch_size={batch_size} leaves a BatchNorm one value per channel, which has no "
            "spread: raise the batch size or the size of the samples"
        ) from error


def unusable_batch(batch: Mapping[str, Any] | LoadingError, step: int) -> str | None:
    """Why a step cannot be taken on a batch; None if it can.

    Asked before the forward pass, which would carry NaN into the statistics of every BatchNorm.

    Args:
        batch: as the loader gives it.
        step: number of updates before it.
    """
    if isinstance(batch, LoadingError):
        return batch.message
    name = first_nonfinite(batch)
    if name is None:
        return None
    return f"the samples of step {step} hold NaN or infinity ({name}): check the training data"


def nonfinite_loss(loss: float, step: int, parts: Mapping[str, Tensor]) -> str:
    """What made a loss NaN or infinite, and what to do.

    Args:
        loss: its value.
        step: number of updates before it.
        parts: the losses it is the sum of.
    """
    spoilt = [name for name, part in parts.items() if not math.isfinite(float(part.detach()))]
    where = f" ({', '.join(spoilt)})" if spoilt else ""
    if not step:  # no weight has been changed yet
        advice = "check the weights that the training starts from, and those of teachers"
    else:
        advice = "lower the learning rate or clip gradients (clip_norm)"
    return f"the loss is {loss} at step {step}{where}: {advice}"
