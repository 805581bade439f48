"""The kinds of cases, and how many there are of each."""

from __future__ import annotations

from dataclasses import dataclass

from tests.robustness import (
    artifacts,
    configurations,
    data_files,
    flips,
    kills,
    transformers_folders,
)
from tests.robustness.cases import Run, of_inputs


@dataclass(frozen=True)
class Kind:
    """
    Attributes:
        run: runs a case.
        short: number of cases in every run of the tests.
        long: number with `--robustness=long`.
        allowed: share of the cases that may fail.
    """

    run: Run
    short: int
    long: int
    allowed: float = 0.0


KINDS = {
    "configurations": Kind(of_inputs(configurations.make), 14, 5000),
    "artifacts": Kind(of_inputs(artifacts.make), 10, 3000),
    "data": Kind(of_inputs(data_files.make), 8, 1500),
    "transformers": Kind(of_inputs(transformers_folders.make), 2, 300),
    "kills": Kind(kills.run, 1, 400),
    "flips": Kind(flips.run, 6, 400, allowed=0.02),
}
SEED = 0
"""Of the series that the tests run."""
