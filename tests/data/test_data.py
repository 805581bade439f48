"""Bicubic resizing, pairs of images, and training patches."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kdp.data import pairs as pairs_module
from kdp.data.images import png_bytes, read_rgb
from kdp.data.pairs import Pair, embedded, hr_only, paired
from kdp.data.patches import PatchDataset
from kdp.data.resize import bicubic, bicubic_uint8
from kdp.errors import KdpError
from kdp.tasks.super_resolution.section import HrOnlySamples, PairedSamples
from kdp.tasks.super_resolution.task import load_pairs
from tests.conftest import ROOT

SAMPLES = {"paired": PairedSamples, "hr_only": HrOnlySamples}


def _image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(image))
    return path


def _folders(root: Path, names: dict[str, str], scale: int = 2) -> tuple[Path, Path]:
    """HR and LR folders; keys are HR names and values LR names."""
    for seed, (hr, lr) in enumerate(names.items()):
        image = _image(24, 36, seed)
        _write(root / "hr" / hr, image)
        _write(root / "lr" / lr, bicubic_uint8(image, 1 / scale))
    return root / "hr", root / "lr"


def _matlab_line(length: int, scale: float) -> np.ndarray:
    """The matrix by which MATLAB's imresize takes a line to ceil(length * scale) values."""

    def cubic(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x <= 1, near, np.where(x <= 2, far, 0))

    shrink = min(scale, 1)
    matrix = np.zeros((int(np.ceil(length * scale)), length))
    for i, row in enumerate(matrix):
        centre = (i + 1) / scale + 0.5 * (1 - 1 / scale)
        places = np.arange(np.floor(centre - 2 / shrink), np.ceil(centre + 2 / shrink) + 1)
        weights = cubic(shrink * (centre - places))
        mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        np.add.at(row, mirror[(places.astype(int) - 1) % (2 * length)], weights / weights.sum())
    return matrix


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2, 3, 4])
def test_bicubic_matches_matlab(scale: float) -> None:
    image = np.random.default_rng(0).random((19, 26))
    expected = _matlab_line(19, scale) @ image @ _matlab_line(26, scale).T
    resized = bicubic(torch.from_numpy(image)[None, None], scale)[0, 0].numpy()
    assert resized.shape == expected.shape
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-6)


def test_bicubic_matches_published_lr_images(shared: Path) -> None:
    golden = torch.load(shared / "golden" / "sr_metrics.pt", weights_only=True)
    image = golden["hr_crop_rgb_uint8"].permute(2, 0, 1)[None].double() / 255
    scales = {"0.5": 1 / 2, "0.333333": 1 / 3, "0.25": 1 / 4, "2": 2.0, "3": 3.0, "4": 4.0}
    for key, scale in scales.items():
        resized = bicubic(image, scale)[0].permute(1, 2, 0)
        expected = golden["resize"][key].double()
        torch.testing.assert_close(resized, expected, rtol=0, atol=1e-5)


def test_bicubic_uint8_rounds_and_clips() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 255
    small = bicubic_uint8(image, 1 / 2)
    exact = _matlab_line(16, 1 / 2) @ image[..., 0].astype(float) @ _matlab_line(16, 1 / 2).T
    assert exact.max() > 255
    np.testing.assert_array_equal(small[..., 0], exact.round().clip(0, 255))


@pytest.mark.parametrize(
    "names",
    [
        {"0001.png": "0001x2.png", "0002.png": "0002x2.png"},  # DIV2K
        {"img_001.png": "img_001x2.png"},  # the benchmarks
        {"baby.png": "baby.png", "bird.png": "bird.png"},  # equal names
        {"0001.png": "x2/0001x2.png"},
    ],
)
def test_pairs_are_found_by_name(tmp_path: Path, names: dict[str, str]) -> None:
    hr, lr = _folders(tmp_path, names)
    pairs = paired(hr, lr, 2)
    assert [pair.name for pair in pairs] == [Path(name).stem for name in names]
    for pair in pairs:
        np.testing.assert_array_equal(pair.lr(), bicubic_uint8(pair.hr(), 1 / 2))


def test_pairs_follow_a_template(tmp_path: Path) -> None:
    hr, lr = _folders(tmp_path, {"a_HR.png": "small/a_HR-by-2.png"})
    config = PairedSamples(kind="paired", hr=hr, lr=lr, lr_template="small/{stem}-by-{scale}.png")
    (pair,) = load_pairs(config, 2, validation=False)
    assert pair.lr().shape == (12, 18, 3)


def test_a_template_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    hr, lr = _folders(tmp_path, {"a.png": "a.png"})
    with pytest.raises(KdpError, match=r"\{name\}.*\{stem\}"):
        paired(hr, lr, 2, "{name}.png")


def test_an_unpaired_image_is_named(tmp_path: Path) -> None:
    hr, lr = _folders(tmp_path, {"a.png": "a.png", "b.png": "other.png"})
    with pytest.raises(KdpError, match=r"no LR image for .*b\.png.*bx2\.png"):
        paired(hr, lr, 2)


def test_sides_that_do_not_match_are_named(tmp_path: Path) -> None:
    hr, lr = _folders(tmp_path, {"a.png": "a.png"})
    with pytest.raises(KdpError, match=r"hr/a\.png is 36x24.*lr/a\.png times 3 is 54x36"):
        paired(hr, lr, 3)[0].hr()


def test_hr_images_are_cropped_to_a_multiple_of_the_scale(tmp_path: Path) -> None:
    image = _image(25, 37)
    _write(tmp_path / "hr" / "a.png", image)
    _write(tmp_path / "lr" / "a.png", bicubic_uint8(image[:24, :36], 1 / 2))
    (pair,) = paired(tmp_path / "hr", tmp_path / "lr", 2)
    np.testing.assert_array_equal(pair.hr(), image[:24, :36])


def test_reading_an_hr_image_decodes_no_lr_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hr, lr = _folders(tmp_path, {"a.png": "a.png"})
    decoded: list[Path] = []
    monkeypatch.setattr(
        pairs_module, "read_rgb", lambda path: decoded.append(path) or read_rgb(path)
    )
    paired(hr, lr, 2)[0].hr()
    assert decoded == [hr / "a.png"]


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(KdpError, match=f"no images in {tmp_path}"):
        hr_only(tmp_path, 2, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["paired", "hr_only"])
def test_a_missing_folder_is_named(tmp_path: Path, kind: str) -> None:
    config = SAMPLES[kind].model_validate({"kind": kind, "hr": tmp_path / "gone", "lr": tmp_path})
    with pytest.raises(KdpError, match="gone does not exist"):
        load_pairs(config, 2, validation=False)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_corrupt_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(KdpError, match=r"bad\.png: it is missing or corrupt"):
        hr_only(tmp_path, 2, tmp_path / "cache")


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "cut.png", _image(40, 40))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(KdpError, match=r"cut\.png"):
        read_rgb(path)


def test_grey_and_sixteen_bit_images_are_read_as_rgb(tmp_path: Path) -> None:
    grey = _image(6, 8)[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "deep.png"), grey.astype(np.uint16) * 257)
    for name in ("grey", "deep"):
        np.testing.assert_array_equal(read_rgb(tmp_path / f"{name}.png"), np.dstack([grey] * 3))


def test_lr_images_are_cached_until_the_hr_image_changes(tmp_path: Path) -> None:
    hr, cache = tmp_path / "hr", tmp_path / "cache"
    path = _write(hr / "a.png", _image(25, 36))
    first = hr_only(hr, 2, cache)[0].lr()
    np.testing.assert_array_equal(first, bicubic_uint8(_image(25, 36)[:24], 1 / 2))
    (kept,) = cache.rglob("*.png")
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(hr_only(hr, 2, cache)[0].lr(), first)
    assert kept.stat().st_mtime_ns == written
    _write(path, _image(25, 36, seed=1))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**6))
    changed = hr_only(hr, 2, cache)[0].lr()
    np.testing.assert_array_equal(changed, bicubic_uint8(_image(25, 36, 1)[:24], 1 / 2))


def test_images_of_one_name_in_two_folders_are_kept_apart(tmp_path: Path) -> None:
    for i in range(2):
        path = _write(tmp_path / str(i) / "hr" / "a.png", _image(16, 16, seed=i))
        os.utime(path, ns=(0, 0))
    kept = [hr_only(tmp_path / str(i) / "hr", 2, tmp_path / "cache")[0].lr() for i in range(2)]
    assert not np.array_equal(*kept)


def test_images_of_one_stem_are_kept_apart(tmp_path: Path) -> None:
    names = ("a.bmp", "a.png", "A.PNG", "b.png")
    for number, name in enumerate(names):
        _write(tmp_path / "hr" / name, _image(12, 12, number))
        os.utime(tmp_path / "hr" / name, ns=(5, 5))
    pairs = hr_only(tmp_path / "hr", 2, tmp_path / "cache")
    assert [pair.name for pair in pairs] == ["A.PNG", "a.bmp", "a.png", "b"]
    for pair in pairs:
        expected = bicubic_uint8(pair.hr(), 0.5)
        np.testing.assert_array_equal(pair.lr(), expected)
        np.testing.assert_array_equal(pair.lr(), expected)  # from the cache


def test_two_images_with_one_partner_are_refused(tmp_path: Path) -> None:
    for name in ("hr/a.bmp", "hr/a.png", "lr/a_small.png"):
        _write(tmp_path / name, _image(12, 12) if name.startswith("hr") else _image(6, 6))
    with pytest.raises(KdpError, match=r"a\.bmp and .*a\.png have the same LR image"):
        paired(tmp_path / "hr", tmp_path / "lr", 2, "{stem}_small.png")


def test_embedded_images_need_no_network_and_no_cache(tmp_path: Path) -> None:
    code = """
import socket
def refuse(*_): raise OSError("no network here")
socket.socket.connect = socket.getaddrinfo = refuse
from kdp.data.pairs import embedded
for validation in (False, True):
    for pair in embedded(3, validation):
        hr, lr = pair.hr(), pair.lr()
        assert hr.ndim == 3 and hr.dtype == lr.dtype == "uint8", pair.name
        assert hr.shape == (3 * lr.shape[0], 3 * lr.shape[1], 3), pair.name
        print(pair.name)
"""
    home = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "SKIMAGE_DATADIR")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **home, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(names) == len(set(names)) == 7


def _patches(seed: int = 0, augment: bool = True, pairs: list[Pair] | None = None) -> PatchDataset:
    pairs = pairs or embedded(2, validation=True)
    return PatchDataset(pairs, 2, patch_size=16, seed=seed, augment=augment, length=24)


def test_samples_do_not_depend_on_order_or_workers() -> None:
    straight = [_patches()[i]["lr"] for i in range(24)]
    data = _patches()
    backwards = [data[i]["lr"] for i in reversed(range(24))][::-1]
    loader = DataLoader(_patches(), batch_size=4, num_workers=2)
    loaded = [image for batch in loader for image in batch["lr"]]
    for a, b, c in zip(straight, backwards, loaded, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_samples_and_seeds_differ() -> None:
    samples = [_patches(seed)[i]["lr"] for seed in range(2) for i in range(4)]
    assert not any(torch.equal(a, b) for i, a in enumerate(samples) for b in samples[:i])


def test_pairs_can_be_pickled_for_spawned_workers(tmp_path: Path) -> None:
    # Where processes are not forked (macOS, newer Python), workers get a pickle of the data.
    hr, lr = _folders(tmp_path, {"a.png": "a.png"})
    for pairs in (embedded(2, True), hr_only(hr, 2, tmp_path / "cache"), paired(hr, lr, 2)):
        again: list[Pair] = pickle.loads(pickle.dumps(pairs))
        np.testing.assert_array_equal(again[0].lr(), pairs[0].lr())


@pytest.mark.parametrize("augment", [False, True])
def test_lr_and_hr_crops_show_the_same_region(augment: bool) -> None:
    data = _patches(augment=augment)
    for i in range(len(data)):
        sample = data[i]
        assert sample["lr"].shape == (3, 16, 16)
        assert sample["hr"].shape == (3, 32, 32)
        small = bicubic(sample["hr"][None].double(), 1 / 2)[0].clamp(0, 1)
        inside = (..., slice(4, -4), slice(4, -4))  # where bicubic does not see the border
        # Half a grey level of rounding; turned halves may round the other way.
        difference = (small - sample["lr"])[inside].abs().max() * 255
        assert difference < 0.51


def test_augmentation_covers_all_eight_orientations(tmp_path: Path) -> None:
    image = _image(32, 32)
    _write(tmp_path / "a.png", image)
    data = PatchDataset(hr_only(tmp_path, 2, tmp_path / "c"), 2, 16, 0, augment=True, length=80)
    orientations = {data[i]["hr"].mul(255).byte().numpy().tobytes() for i in range(80)}
    turned = [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]
    assert orientations == {side.transpose(2, 0, 1).tobytes() for side in turned}
