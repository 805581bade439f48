"""What the plot of a run shows."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdp.training import curve_plot
from kdp.training.curve_plot import plot_curves

HEADLINE = ("psnr",)


def run(steps: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        losses = {"loss": 1 / step, "task": 1 / step, "feature": 2 / step, "seconds": 0.1}
        rows.append({"step": step, "lr": 1e-3, "psnr": 29.0, **losses})
    quality = {"A/psnr": 30.0, "A/loss": 0.5, "A/class bus": 0.3, "B/psnr": None, "B/ssim": 0.9}
    return [*rows, {"step": steps, "lr": 1e-3, **quality}]


def panels(rows: list[dict[str, Any]], monkeypatch: Any, metrics: Any = HEADLINE) -> list[Axes]:
    """The axes of the plot, as they are when it is written."""
    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )
    plot_curves(rows, metrics)
    return figures[0].axes


def titles(axes: list[Axes]) -> list[str]:
    return [panel.get_title(loc="left") for panel in axes]


def test_panels_are_losses_headline_metrics_and_the_learning_rate(monkeypatch: Any) -> None:
    axes = panels(run(4), monkeypatch)
    assert titles(axes) == ["loss", "parts of the loss", "psnr", "learning rate"]


def test_without_headline_metrics_details_of_classes_are_still_left_out(monkeypatch: Any) -> None:
    axes = panels(run(4), monkeypatch, ())
    assert titles(axes)[2:] == ["psnr", "ssim", "learning rate"]


def test_training_and_validation_loss_share_a_panel(monkeypatch: Any) -> None:
    loss = panels(run(4), monkeypatch)[0]
    labels = [line.get_label() for line in loss.lines]
    assert labels == ["training", "training, ground truth alone", "A"]


def test_without_distillation_the_training_loss_is_one_line(monkeypatch: Any) -> None:
    rows = [{k: v for k, v in row.items() if k != "feature"} for row in run(4)]
    loss = panels(rows, monkeypatch)[0]
    assert [line.get_label() for line in loss.lines] == ["training", "A"]


def test_training_and_validation_of_a_metric_share_a_panel(monkeypatch: Any) -> None:
    psnr = panels(run(4), monkeypatch)[2]
    assert [(line.get_label(), line.get_ydata()[0]) for line in psnr.lines] == [
        ("training", 29.0),
        ("A", 30.0),
    ]


def test_a_run_with_few_points_has_markers(monkeypatch: Any) -> None:
    few = panels(run(1), monkeypatch)[0].lines[0]
    assert few.get_marker() == "o"
    many = panels(run(curve_plot._FEW + 1), monkeypatch)[0].lines[0]
    assert many.get_marker() == ""


def test_the_learning_rate_is_the_lowest_panel_and_small(monkeypatch: Any) -> None:
    *others, rate = panels(run(4), monkeypatch)
    assert all(rate.get_position().height < panel.get_position().height / 2 for panel in others)
    assert all(rate.get_position().y1 < panel.get_position().y0 for panel in others)


def test_one_point_leaves_ink_in_its_panel() -> None:
    row = {"step": 1, "lr": 1e-3, "loss": 1.0}
    blank = {"step": 1, "lr": None, "loss": None}
    images = [
        cv2.imdecode(np.frombuffer(plot_curves([r]), np.uint8), cv2.IMREAD_COLOR)
        for r in (row, blank)
    ]
    blue = [int((image[..., 0].astype(int) - image[..., 2] > 100).sum()) for image in images]
    assert blue[0] > 20
    assert blue[1] == 0


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e-9, 3e-9), (1.05e-5, 1.35e-5), (-1e7, 12_345_678), (29.000001, 29.000003), (1e-3, 1e12)],
)
def test_numbers_beside_an_axis_fit_into_its_margin(
    monkeypatch: Any, low: float, high: float
) -> None:
    values = [low, (low + high) / 2, high]
    rows = [
        {"step": 10_000 * step, "lr": v, "loss": v, "A/loss": v, "A/psnr": v, "A/ssim": v}
        for step, v in enumerate(values, 1)
    ]
    axes = panels(rows, monkeypatch, ("psnr", "ssim"))
    figure = axes[0].get_figure()
    assert figure is not None
    others = [panel.get_window_extent() for panel in axes]
    for panel in axes:
        for label in panel.get_yticklabels():
            box = label.get_window_extent()
            assert box.x0 >= 0, label
            assert not any(box.overlaps(other) for other in others if label.get_text()), label
