"""Image quality as the super-resolution literature computes it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

WINDOW = 11
"""Side of the window of SSIM, in pixels."""
_Y_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255


def luma(image: np.ndarray) -> np.ndarray:
    """Y of BT.601 (16..235), float, of an (H, W, 3) RGB image in 0..255."""
    return image.astype(np.float64) @ _Y_WEIGHTS + 16


def psnr(a: np.ndarray, b: np.ndarray, border: int = 0, y_channel: bool = True) -> float:
    """Peak signal-to-noise ratio in dB of two (H, W, 3) uint8 images; peak 255.

    Args:
        border: pixels cut off on every side.
        y_channel: compare the luma only.
    """
    a, b = (_prepare(image, border, y_channel) for image in (a, b))
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def luma_psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR on Y in dB of each pair of images, (B,), from two (B, 3, H, W) RGB in 0..1.

    What is outside 0..1 is clipped, nothing is rounded. Equal images have 100 dB.
    """
    channels = (a.float().clamp(0, 1) - b).unbind(1)
    weighted = [c * float(weight) for c, weight in zip(channels, _Y_WEIGHTS, strict=True)]
    error = (weighted[0] + weighted[1] + weighted[2]).square()
    return -10 * error.mean((1, 2)).clamp_min(1e-10).log10()


def ssim(a: np.ndarray, b: np.ndarray, border: int = 0, y_channel: bool = True) -> float:
    """Structural similarity (Wang et al. 2004), mean over channels and valid 11x11 windows."""
    # Half a second to import, and few commands need it.
    from skimage.metrics import structural_similarity

    a, b = (_prepare(image, border, y_channel) for image in (a, b))
    _, full = structural_similarity(
        a,
        b,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        full=True,
    )
    return float(full[5:-5, 5:-5].mean())


def _prepare(image: np.ndarray, border: int, y_channel: bool) -> np.ndarray:
    if border:
        image = image[border:-border, border:-border]
    return luma(image)[..., None] if y_channel else image.astype(np.float64)
