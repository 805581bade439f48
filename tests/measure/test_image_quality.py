"""PSNR and SSIM as the super-resolution literature computes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdp.measure.image_quality import luma, psnr, ssim


def _pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    clean = random.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    noise = random.normal(0, 12, clean.shape)
    return clean, (clean + noise).round().clip(0, 255).astype(np.uint8)


def test_metrics_match_published_values(shared: Path) -> None:
    golden = torch.load(shared / "golden" / "sr_metrics.pt", weights_only=True)
    clean = golden["clean_rgb_uint8"].numpy()
    assert golden["metrics"]
    for case in golden["metrics"]:
        noisy = golden[f"noisy_rgb_uint8_{case['noise']}"].numpy()
        how = {"border": case["crop_border"], "y_channel": case["y_channel"]}
        assert psnr(noisy, clean, **how) == pytest.approx(case["psnr"], abs=1e-3)
        assert ssim(noisy, clean, **how) == pytest.approx(case["ssim"], abs=1e-5)


def test_luma_follows_bt601() -> None:
    colours = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    expected = [[235, 16, 16 + 65.481, 16 + 128.553, 16 + 24.966]]
    np.testing.assert_allclose(luma(colours.astype(np.uint8)), expected, atol=1e-9)


@pytest.mark.parametrize("y_channel", [True, False])
def test_psnr_matches_a_calculation_by_hand(y_channel: bool) -> None:
    clean, noisy = _pair()
    a, b = (image[2:-2, 2:-2].astype(float) for image in (clean, noisy))
    if y_channel:
        a, b = (16 + i @ np.array([65.481, 128.553, 24.966]) / 255 for i in (a, b))
    expected = 20 * np.log10(255) - 10 * np.log10(np.square(a - b).mean())
    assert psnr(noisy, clean, border=2, y_channel=y_channel) == pytest.approx(expected)


def test_ssim_matches_a_calculation_by_hand() -> None:
    clean, noisy = _pair()
    a, b = luma(clean[1:-1, 1:-1]), luma(noisy[1:-1, 1:-1])
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            p, q = (i[top : top + 11, left : left + 11] for i in (a, b))
            m, n = (window * p).sum(), (window * q).sum()
            covariance = (window * p * q).sum() - m * n
            spread = (window * (p * p + q * q)).sum() - m * m - n * n
            c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            values.append(
                (2 * m * n + c1) * (2 * covariance + c2) / ((m * m + n * n + c1) * (spread + c2))
            )
    assert ssim(noisy, clean, border=1) == pytest.approx(np.mean(values), abs=1e-7)


def test_equal_images_have_perfect_scores() -> None:
    clean, _ = _pair()
    assert psnr(clean, clean) == float("inf")
    assert ssim(clean, clean) == pytest.approx(1)


def test_the_border_is_excluded() -> None:
    clean, _ = _pair()
    framed = clean.copy()
    framed[:2] = framed[-2:] = 0
    framed[:, :2] = framed[:, -2:] = 0
    assert psnr(framed, clean, border=2) == float("inf")
    assert psnr(framed, clean, border=1) < 60
