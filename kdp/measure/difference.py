"""How far two outputs are apart."""

from __future__ import annotations

from torch import Tensor


def relative_difference(output: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value.

    Args:
        output, expected: of one shape.

    Returns:
        0 for equal outputs, even where all are zero; NaN if a value is not finite.
    """
    difference = (output - expected).abs().max()
    return float(difference / expected.abs().max()) if difference != 0 else 0.0
