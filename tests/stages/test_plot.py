"""`kdp compare --plot`: what the plot of a comparison shows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from kdp.artifacts import Artifact, make_record, save
from kdp.data.images import png_bytes, read_rgb
from kdp.errors import KdpError
from kdp.measure.latency import Latency
from kdp.models import build
from kdp.stages.compare.compare import Comparison, MeasuredNetwork
from kdp.stages.compare.plot import figure
from kdp.types import Arch
from tests.conftest import TINY
from tests.runs import complaints, run_kdp

SETS = {"Set5": 5, "Set14": 14, "my own": 3, "Urban100": 100}


def _comparison(files: dict[str, tuple[float, float]], sets: dict[str, int]) -> Comparison:
    """Files by label, each with its MACs in G and its PSNR on the first set."""
    columns = [
        MeasuredNetwork(
            label=label,
            path=Path(f"{label}.pth"),
            arch=Arch("catanet", TINY),
            stage=None,
            quality={s: {"psnr": psnr + i, "ssim": 0.9} for i, s in enumerate(sets)},
            parameters=1,
            deployed_parameters=1,
            nonzero=1,
            macs=round(macs * 1e9),
            module_macs=1,
            file_bytes=1,
            latency=Latency(1.0, 1.0, 1.0, 1, 1.0),
            weight_bytes=4.0,
            precision="fp32",
        )
        for label, (macs, psnr) in files.items()
    ]
    shapes = (1, 3, 64, 48), (1, 3, 8, 8)
    return Comparison(columns, "the protocol", sets, "the counter", "thop", *shapes, 1, "cpu")


FILES = {"teacher": (16.0, 33.0), "pruned": (16.0, 30.0), "rebuilt": (9.5, 32.8)}


def _points(axes: Axes) -> dict[str, tuple[float, float]]:
    return {str(dots.get_gid()): tuple(dots.get_offsets()[0]) for dots in axes.collections}


def _labels(axes: Axes) -> list[Annotation]:
    return [text for text in axes.texts if isinstance(text, Annotation) and text.get_text()]


def test_a_panel_per_set_and_a_labelled_point_per_file() -> None:
    drawing = figure(_comparison(FILES, SETS), "psnr")
    assert [axes.get_title() for axes in drawing.axes] == [
        f"{name} ({count} samples)" for name, count in SETS.items()
    ]
    for i, axes in enumerate(drawing.axes):
        expected = {label: (macs, psnr + i) for label, (macs, psnr) in FILES.items()}
        assert _points(axes) == expected
        assert {note.get_text(): note.xy for note in _labels(axes)} == expected


def test_axes_and_title_show_what_was_measured() -> None:
    drawing = figure(_comparison(FILES, SETS), "psnr")
    for axes in drawing.axes:
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("MACs, all, G", "PSNR, dB")
    title = drawing.get_suptitle()
    assert "the protocol" in title
    assert "the counter; input 1x3x64x48" in title


def test_another_metric_can_be_shown() -> None:
    (axes,) = figure(_comparison(FILES, {"Set5": 5}), "ssim").axes
    assert axes.get_ylabel() == "SSIM"
    assert {y for _, y in _points(axes).values()} == {0.9}


@pytest.mark.parametrize(
    "files",
    [
        FILES,
        {f"network_{i}": (12.0, 33.0) for i in range(4)},
        {f"net_{i}": (12 + 0.1 * i, 33 + 0.02 * (-1) ** i) for i in range(8)} | {"far": (30, 34)},
    ],
)
def test_labels_do_not_overlap_or_leave_their_panel(files: dict[str, tuple[float, float]]) -> None:
    drawing = figure(_comparison(files, {"Set5": 5, "Set14": 14}), "psnr")
    drawing.draw_without_rendering()
    for axes in drawing.axes:
        boxes = [Text.get_window_extent(note) for note in _labels(axes)]
        assert len(boxes) == len(files)
        for i, box in enumerate(boxes):
            assert box.count_overlaps(boxes[:i]) == 0
            # The layout may still shift by a pixel or two.
            assert axes.bbox.padded(2).containsx(box.x0)
            assert axes.bbox.padded(2).containsx(box.x1)


def test_a_value_that_is_not_finite_is_named() -> None:
    files = {**FILES, "copy": (20.0, math.inf)}
    (axes,) = figure(_comparison(files, {"Set5": 5}), "psnr").axes
    assert _points(axes) == FILES
    assert axes.get_title() == "Set5 (5 samples)\ncopy is inf"


def test_without_an_evaluation_set_there_is_nothing_to_plot() -> None:
    with pytest.raises(KdpError, match="no evaluation set"):
        figure(_comparison(FILES, {}), "psnr")


def test_compare_writes_the_plot(tmp_path: Path) -> None:
    network, target = tmp_path / "tiny.pth", tmp_path / "plots" / "quality.png"
    arch = Arch("catanet", TINY)
    params = build("catanet", **TINY).state_dict()
    save(network, Artifact(params, arch, make_record("train", {})))
    for name, side in (("hr", 24), ("lr", 12)):
        (tmp_path / name).mkdir()
        pixels = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8).numpy()
        (tmp_path / name / "a.png").write_bytes(png_bytes(pixels))
    chosen = [
        f"evaluation={{Tiny:{{kind:paired,hr:{tmp_path}/hr,lr:{tmp_path}/lr}}}}",
        "measure={input_size:[16,16],latency_size:[16,16],latency_runs:1,warmup_runs:0}",
    ]
    more = [part for pair in chosen for part in ("--set", pair)]
    done = run_kdp("compare", str(network), "--device", "cpu", "--plot", str(target), *more)
    assert done.returncode == 0, complaints(done.stderr)
    image = read_rgb(target)
    assert min(image.shape[:2]) > 500
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
