"""The kinds of cases, and how many there are of each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.robustness import configurations
from tests.robustness.cases import Make


@dataclass(frozen=True)
class Kind:
    """Attributes:
    make: makes a case.
    short: number of cases in every run of the tests.
    long: number with `--robustness=long`.
    """

    make: Make
    short: int
    long: int


KINDS = {
    "configurations": Kind(configurations.make, 20, 5000),
}
SEED = 0
"""Of the series that the tests run."""
