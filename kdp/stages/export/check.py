"""Comparing the outputs of an exported network with those of its original."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kdp.errors import KdpError
from kdp.measure.difference import relative_difference
from kdp.tasks.export_spec import OutputSplit

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": 0.5}
"""Largest accepted difference of the outputs by precision."""
LOST = 10.0
"""Values of a fixed scale that are this many times smaller than the original's are lost."""
NEGLIGIBLE = 1e-6
"""Share of the scale below which half precision has no accurate values."""


def check_outputs(
    output: Tensor, expected: Tensor, splits: Sequence[OutputSplit], precision: str
) -> float:
    """Make sure that outputs agree, each part on its own.

    Boxes in pixels are hundreds of times larger than probabilities: as one part, they would hide
    probabilities that are entirely wrong.

    Args:
        output: of the exported network, (B, C, ...).
        expected: of the original.
        splits: parts along axis 1; () for one part.
        precision: fp32, fp16 or int8.

    Returns:
        The largest difference, relative to a part's scale, or to its largest value where it has
        none.

    Raises:
        KdpError: a difference exceeds `TOLERANCES`, or a part has vanished.
    """
    if not splits:
        return _checked(output, expected, OutputSplit("", 0), precision)
    lengths = [split.length for split in splits]
    parts = zip(output.split(lengths, 1), expected.split(lengths, 1), splits, strict=True)
    return max(_checked(own, reference, split, precision) for own, reference, split in parts)


def _checked(output: Tensor, expected: Tensor, split: OutputSplit, precision: str) -> float:
    where = f" in its {split.name}" if split.name else ""
    if split.scale is None:
        difference = relative_difference(output, expected)
        unit = " of the largest value"
    else:
        difference = float((output - expected).abs().max()) / split.scale
        unit = ""
    limit = TOLERANCES[precision]
    if not difference <= limit:  # NaN too
        raise KdpError(
            f"the exported network differs from the original by {difference:.2g}{unit}{where}; "
            f"the limit for {precision} is {limit:g}"
        )
    if split.scale is not None:
        _check_present(float(output.max()), float(expected.max()), split)
    return difference


def _check_present(largest: float, expected: float, split: OutputSplit) -> None:
    """An absolute limit would accept zeros where the probe's own values are below it."""
    assert split.scale is not None
    if expected > NEGLIGIBLE * split.scale and largest < expected / LOST:
        raise KdpError(
            f"the exported network differs from the original: its {split.name} reach {largest:.2g} "
            f"in place of {expected:.2g}"
        )
