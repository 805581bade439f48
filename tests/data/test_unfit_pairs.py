"""Images that cannot be read, or are too small, are found before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kdp.config import Config
from kdp.data.images import png_bytes
from kdp.data.pairs import hr_only, paired
from kdp.data.patches import PatchDataset
from kdp.data.resize import bicubic_uint8
from kdp.errors import KdpError
from kdp.stages.train.train import train
from kdp.stages.validate import validate
from kdp.tasks.super_resolution.section import HrOnlySamples, PairedSamples
from kdp.tasks.super_resolution.task import load_pairs
from tests import runs


def write(path: Path, height: int = 40, width: int = 40) -> Path:
    """An image of noise, whose file is not empty towards its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(sum(path.name.encode()))
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_training_images_without_their_end_are_left_out_once(
    tmp_path: Path, messages: list[str], suffix: str
) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.{suffix}")
    cut(tmp_path / f"b.{suffix}")
    for _ in range(2):
        section = HrOnlySamples(kind="hr_only", hr=tmp_path, cache=tmp_path / "cache")
        pairs = load_pairs(section, 2, validation=False)
        assert [pair.name for pair in pairs] == ["a", "c"]
    assert messages == [f"{tmp_path}: 1 corrupt images left out: b"]
    with pytest.raises(KdpError, match=rf"cannot read .*b\.{suffix}: it"):
        load_pairs(section, 2, validation=True)


@pytest.mark.parametrize("side", ["hr", "lr"])
def test_a_pair_is_left_out_for_either_of_its_files(
    tmp_path: Path, messages: list[str], side: str
) -> None:
    for name in ("a", "b"):
        image = cv2.imread(str(write(tmp_path / f"hr/{name}.png")))
        (tmp_path / "lr").mkdir(exist_ok=True)
        (tmp_path / f"lr/{name}.png").write_bytes(png_bytes(bicubic_uint8(image, 0.5)))
    cut(tmp_path / f"{side}/a.png")
    assert [pair.name for pair in paired(tmp_path / "hr", tmp_path / "lr", 2)] == ["b"]
    assert len(messages) == 1
    section = PairedSamples(kind="paired", hr=tmp_path / "hr", lr=tmp_path / "lr")
    with pytest.raises(KdpError, match=rf"{side}/a\.png: its end is missing"):
        load_pairs(section, 2, validation=True)


SMALL = [(12, 40), (1, 1), (31, 300)]


@pytest.mark.parametrize(("height", "width"), SMALL)
def test_an_image_smaller_than_the_patch_is_named_with_the_first_sample(
    tmp_path: Path, height: int, width: int
) -> None:
    for number in range(9):
        write(tmp_path / f"{number}.png")
    write(tmp_path / "tiny.png", height, width)
    for seed in range(3):  # whichever image it shows
        data = PatchDataset(hr_only(tmp_path, 2, tmp_path / "c"), 2, 16, seed, False, length=9)
        with pytest.raises(
            KdpError, match=rf"LR images of tiny \({width // 2}x{height // 2}\) .*patch_size=16"
        ):
            data[0]


def hr_config(folder: Path, **changes: Any) -> Config:
    return runs.config(folder, distill=None, **changes)


@pytest.mark.parametrize(("height", "width"), SMALL)
def test_training_ends_before_its_first_step(tmp_path: Path, height: int, width: int) -> None:
    settings = hr_config(tmp_path)
    settings = settings.model_copy(
        update={"data": settings.data.model_copy(update={"patch_size": 16})}
    )
    write(tmp_path / "images" / "tiny.png", height, width)
    with pytest.raises(KdpError, match=r"LR images of tiny .*patch_size=16: leave them out"):
        train(settings)
    assert not (tmp_path / "runs").exists()
    last = list(validate(settings))[-1]
    assert (last.name, last.passed) == ("data", False)
    assert "tiny" in last.message


@pytest.mark.parametrize(("height", "width"), [(12, 40), (1, 1), (15, 15)])
def test_images_too_small_for_ssim_are_named(tmp_path: Path, height: int, width: int) -> None:
    settings = hr_config(tmp_path)
    write(tmp_path / "evaluation" / "tiny.png", height, width)
    with pytest.raises(KdpError, match=r"tiny .* too small to measure SSIM on: .* 8 pixels"):
        train(settings)
    last = list(validate(settings))[-1]
    assert (last.name, last.passed) == ("data", False)


def test_pairs_that_do_not_fit_are_named_before_they_are_read(tmp_path: Path) -> None:
    write(tmp_path / "hr/a.png", 40, 40)
    write(tmp_path / "lr/a.png", 19, 20)
    with pytest.raises(KdpError, match=r"hr/a\.png is 40x40.*lr/a\.png times 2 is 40x38"):
        paired(tmp_path / "hr", tmp_path / "lr", 2)
