"""Trainings of two processes that stop and continue."""

from __future__ import annotations

import signal
from pathlib import Path
from unittest.mock import patch

import pytest
from torch import nn

from kdp.errors import Interrupted
from kdp.training import shutdown
from kdp.training.loop import fit
from tests.runs import run_ranks
from tests.training.helpers import curve_rows, settings, toy_job

RARE = settings(log_every=5, batch_size=4)
"""The means in the curves are over several steps, so a stop has to keep their sums."""


def abandon(rank: int, folder: Path, times: int) -> None:
    """Abandon the validation at step 2 so many times in a row, then train to the end."""
    validate = toy_job(folder).validate

    def interrupted(model: nn.Module) -> dict[str, dict[str, float]]:
        signal.raise_signal(signal.SIGTERM)
        return validate(model)

    with patch.object(shutdown, "GRACE", 0.0):
        for time in range(times):
            job = toy_job(folder, settings=RARE, validate=interrupted)
            with pytest.raises(Interrupted, match="after step 2"):
                fit(job, resume=time > 0)
        fit(toy_job(folder, settings=RARE), resume=times > 0)


def test_a_validation_may_be_abandoned_in_several_processes(tmp_path: Path) -> None:
    """Each rank holds the same sums, so none waits for a reduction that the other leaves out."""
    for times in (0, 2):
        assert run_ranks(abandon, tmp_path / str(times), times, timeout=60) == [0, 0]
        assert curve_rows(tmp_path / str(times)) == curve_rows(tmp_path / "0")
