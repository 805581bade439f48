"""The log-mel front end and its augmentations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdp.data import mel
from kdp.data.mel_settings import MelSettings
from tests.data.audio_helpers import log_mel, sine


def numpy_log_mel(wave: Any) -> Any:
    """The front end by its definition, in float64 and without torch or transformers."""
    padded = np.pad(wave.astype(np.float64), 2048, mode="reflect")
    hann = np.zeros(4096)
    hann[512:3584] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(3072) / 3072)
    frames = np.stack([padded[i * 500 : i * 500 + 4096] for i in range(65)])
    power = np.abs(np.fft.fft(hann * frames)[:, :2049]) ** 2
    top = 2595 * np.log10(1 + 16000 / 700)
    edges = 700 * (10 ** (np.arange(258) * top / 257 / 2595) - 1)
    hertz = np.arange(2049) * 32000 / 4096
    mel_power = np.empty((256, 65))
    for i in range(256):
        low, middle, high = edges[i : i + 3]
        rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
        mel_power[i] = power @ np.clip(np.minimum(rising, falling), 0, None)
    return np.log(mel_power + 1e-5)


def assert_same_spectrum(log_mel: Any, expected: Any) -> None:
    """Compare two (bins, frames) log-mel spectrograms by amplitude, not by logarithm.

    A single-precision FFT rounds every bin of a frame by about one epsilon of the frame's loudest
    amplitude. Beside a tone the quiet bins are nothing but that rounding, which differs between
    processors and FFT libraries, and the logarithm of a power near the floor magnifies it to 1e-3.
    The relative term covers the rounding of the logarithm itself.
    """
    amplitude, wanted = (np.exp(np.asarray(x, np.float64) / 2) for x in (log_mel, expected))
    rounding = np.finfo(np.float32).eps * wanted.max(0, keepdims=True)
    assert (np.abs(amplitude - wanted) <= 1e-5 * wanted + rounding).all()


def test_log_mel_agrees_with_its_definition_in_float64() -> None:
    random = np.random.default_rng(0)
    noise = 0.1 * random.standard_normal(32000)
    batch = np.stack([noise, sine(1000), 1e-3 * noise]).astype(np.float32)
    spectrograms = log_mel()(torch.from_numpy(batch))
    assert spectrograms.shape == (3, 1, 256, 65)
    for spectrogram, wave in zip(spectrograms[:, 0].numpy(), batch, strict=True):
        assert_same_spectrum(spectrogram, numpy_log_mel(wave))


@pytest.mark.parametrize(
    "settings",
    [
        MelSettings(),
        MelSettings(sample_rate=16_000, window_length=1024, n_fft=1024, hop_length=320),
        MelSettings(n_mels=128, f_min=200, f_max=8000),
        MelSettings(sample_rate=44_100, n_mels=100, hop_length=441),
    ],
)
def test_a_tone_is_loudest_where_htk_puts_it(settings: MelSettings) -> None:
    wave = sine(1000, rate=settings.sample_rate).astype(np.float32)
    spectrogram = mel.LogMel(settings)(torch.from_numpy(wave)[None])
    assert spectrogram.shape == (1, 1, settings.n_mels, settings.frames)
    low, tone, high = (
        np.log10(1 + hertz / 700) for hertz in (settings.f_min, 1000, settings.highest)
    )
    expected = (tone - low) / (high - low) * (settings.n_mels + 1) - 1
    assert abs(int(spectrogram[0, 0, :, settings.frames // 2].argmax()) - expected) < 1


def test_the_front_end_has_no_weights_and_does_not_depend_on_the_batch() -> None:
    batch = torch.randn(20, 32000, generator=torch.Generator().manual_seed(0))
    assert not log_mel().state_dict()
    assert_same_spectrum(log_mel()(batch)[17, 0], log_mel()(batch[17:18])[0, 0])


def test_log_mel_stays_in_float32_under_autocast() -> None:
    wave = torch.from_numpy(sine(1000).astype(np.float32))[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spectrogram = log_mel()(wave)
    assert spectrogram.dtype == torch.float32
    assert_same_spectrum(spectrogram[0, 0], log_mel()(wave)[0, 0])


def spectrograms(batch: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 1, 256, 65, generator=random)
    scale = torch.arange(1, batch + 1).view(-1, 1, 1, 1).float()
    return x * scale + 3 * scale


def test_freq_mix_style_mixes_the_statistics_of_two() -> None:
    torch.manual_seed(0)
    x = spectrograms()
    mixed = mel.freq_mix_style(x, p=1.0)
    means, before = mixed.mean((1, 3)), x.mean((1, 3))
    assert not torch.allclose(means, before)
    assert (means >= before.min(0).values - 1e-4).all()
    assert (means <= before.max(0).values + 1e-4).all()
    for output, original in zip(mixed, x, strict=True):
        normed = [
            (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True) for y in (output, original)
        ]
        torch.testing.assert_close(*normed, atol=1e-3, rtol=1e-3)


def test_freq_mix_style_is_applied_with_its_probability() -> None:
    torch.manual_seed(0)
    x = spectrograms(2)
    unchanged = sum(mel.freq_mix_style(x, p=0.4) is x for _ in range(300))
    assert 150 < unchanged < 210
    assert mel.freq_mix_style(x, p=0.0) is x


def test_a_frequency_mask_is_one_band_at_the_mean() -> None:
    torch.manual_seed(0)
    x = spectrograms(64)
    masked = mel.frequency_mask(x, width=48)
    changed = (masked != x).any(3)[:, 0]
    widths = changed.sum(1)
    assert widths.max() <= 48
    assert len(set(widths.tolist())) > 20
    for output, before, band in zip(masked, x, changed, strict=True):
        where = band.nonzero().flatten()
        assert torch.equal(where, torch.arange(len(where)) + (where[0] if len(where) else 0))
        # The mean of one spectrogram and of one in a batch may be summed in another order.
        torch.testing.assert_close(output[:, band], before.mean().expand_as(output[:, band]))


def test_augmentation_repeats_with_torchs_seed() -> None:
    def changed() -> Tensor:
        torch.manual_seed(7)
        return mel.frequency_mask(mel.freq_mix_style(spectrograms(), p=1.0))

    assert torch.equal(changed(), changed())
