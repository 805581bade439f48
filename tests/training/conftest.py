"""Fixtures of the training tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip drawing curves, which takes longer than these trainings, but in tests of curves."""
    if request.path.name not in ("test_curves.py", "test_curve_plot.py"):
        monkeypatch.setattr("kdp.training.curves.plot_curves", lambda rows, metrics: b"")
