"""Log-mel spectrograms, the input of acoustic-scene networks, and their augmentation.

The front end of the DCASE 2024 Task 1 baseline (github.com/CPJKU/dcase2024_task1_baseline).
Shapes: B batch, F mel bins or frequencies, T frames.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from kdp.data.audio import audio_package
from kdp.data.mel_settings import MelSettings
from kdp.log import log_once

FLOOR = 1e-5
SAMPLES_AT_ONCE = 16
"""Batch size inside: 1.7 times as fast on one CPU thread as 64, with bounded memory."""


class LogMel(nn.Module):
    """Waveforms to log-mel spectrograms, log(mel power + 1e-5).

    Power spectra of centred frames (reflect padding, periodic Hann window), through triangular
    filters on the HTK mel scale, each of height one (no norm), as in torchaudio's MelSpectrogram by
    default. The filter matrix is dense although 99 % of it is zero: banded products save no more
    than a fifth of the time.

    It has no parameters and an empty state dict. It computes in float32 even under autocast,
    because powers overflow float16.

    Args:
        settings: sampling rate, frames and mel bins.

    Raises:
        KdpError: transformers is not installed.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, settings: MelSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or MelSettings()
        self.register_buffer("filters", _filters(self.settings), persistent=False)
        window = torch.hann_window(self.settings.window_length)
        self.register_buffer("window", window, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, samples) -> (B, 1, n_mels, 1 + samples // hop_length), on the waveforms' device.

        One second gives (B, 1, 256, 65) by default. There must be more than n_fft / 2 samples, for
        the reflect padding.
        """
        self.to(wave.device)
        with torch.autocast(wave.device.type, enabled=False):
            parts = [self._mel(chunk.float()) for chunk in wave.split(SAMPLES_AT_ONCE)]
        return torch.cat(parts).unsqueeze(1)

    def _mel(self, wave: Tensor) -> Tensor:
        spectrum_BFT = torch.stft(
            wave,
            self.settings.n_fft,
            self.settings.hop_length,
            self.settings.window_length,
            self.window,
            pad_mode="reflect",
            return_complex=True,
        )
        power_BFT = spectrum_BFT.real.square() + spectrum_BFT.imag.square()
        mel_BTF = power_BFT.transpose(1, 2) @ self.filters
        return (mel_BTF.transpose(1, 2) + FLOOR).log()


def _filters(settings: MelSettings) -> Tensor:
    """(frequencies, n_mels); logs how many bins are narrower than the FFT's resolution."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty filters, which the line below names
        filters = audio_package("transformers.audio_utils").mel_filter_bank(
            num_frequency_bins=settings.n_fft // 2 + 1,
            num_mel_filters=settings.n_mels,
            min_frequency=settings.f_min,
            max_frequency=settings.highest,
            sampling_rate=settings.sample_rate,
            norm=None,
            mel_scale="htk",
        )
    if empty := int((filters.max(0) == 0).sum()):
        log_once(
            f"{empty} of {settings.n_mels} mel bins are always empty: they are narrower than the "
            f"resolution of an FFT of {settings.n_fft} samples; raise n_fft or lower n_mels"
        )
    return torch.from_numpy(filters).float()


def freq_mix_style(x: Tensor, p: float = 0.4, alpha: float = 0.3) -> Tensor:
    """Freq-MixStyle: mix the per-frequency statistics of random pairs in a batch.

    MixStyle (arXiv 2104.02008) with mean and standard deviation over channels and time for each
    frequency, as in the DCASE baseline: a recording device shows mainly as a gain per frequency, so
    the network sees mixtures of devices. Random numbers come from torch's global CPU generator, so
    that a seed gives the same augmentation on every device.

    Args:
        x: (B, 1, F, T).
        p: probability that the batch is augmented.
        alpha: mixing weights are drawn from Beta(alpha, alpha).
    """
    if torch.rand(()) >= p:
        return x
    weight = torch.distributions.Beta(alpha, alpha).sample((len(x), 1, 1, 1)).to(x)
    other = torch.randperm(len(x)).to(x.device)
    mean = x.mean((1, 3), keepdim=True)
    deviation = (x.var((1, 3), keepdim=True) + 1e-6).sqrt()
    new_mean = torch.lerp(mean[other], mean, weight)
    new_deviation = torch.lerp(deviation[other], deviation, weight)
    return (x - mean) / deviation * new_deviation + new_mean


def frequency_mask(x: Tensor, width: int = 48) -> Tensor:
    """Set one random frequency band of each spectrogram to the spectrogram's mean.

    The frequency masking of SpecAugment (arXiv 1904.08779), drawn per sample. Random numbers come
    from torch's global CPU generator, as in `freq_mix_style`.

    Args:
        x: (B, 1, F, T).
        width: largest number of bins in a band; bands may be empty.
    """
    batch, _, bins, _ = x.shape
    widths = torch.randint(min(width, bins) + 1, (batch, 1))
    starts = (torch.rand(batch, 1) * (bins - widths + 1)).long()
    index = torch.arange(bins)
    masked = ((index >= starts) & (index < starts + widths)).view(batch, 1, bins, 1)
    return torch.where(masked.to(x.device), x.mean((1, 2, 3), keepdim=True), x)
