"""What a network hears: log-mel spectrograms, and what changes them at random in training.

The front end of the DCASE 2024 Task 1 baseline (github.com/CPJKU/dcase2024_task1_baseline).
Shapes: B batch, F mel bins or frequencies, T frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdp.data.audio import RATE, audio_package

WINDOW, HOP, N_FFT, BINS = 3072, 500, 4096, 256
FLOOR = 1e-5
SAMPLES_AT_ONCE = 16
"""On one CPU thread 1.7 times as fast as 64 at once, and large batches take no more memory."""


class LogMel(nn.Module):
    """Waves to log-mel spectrograms: log(mel power + 1e-5).

    Power spectra of centred frames (reflect padding, periodic Hann window of 3072 samples, hop 500,
    FFT of 4096), through 256 triangular filters from 0 to 16 kHz on the HTK mel scale, each of
    height one (no norm), as torchaudio's MelSpectrogram has them by default. The filters are dense
    though 99 % of them are zeros: products by bands save no more than a fifth of the time.

    It has no parameters and nothing in its state dict. It computes in float32 under autocast too,
    because powers overflow float16.

    Raises:
        KdpError: transformers is not installed.
    """

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        filters = audio_package("transformers.audio_utils").mel_filter_bank(
            num_frequency_bins=N_FFT // 2 + 1,
            num_mel_filters=BINS,
            min_frequency=0.0,
            max_frequency=RATE / 2,
            sampling_rate=RATE,
            norm=None,
            mel_scale="htk",
        )
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(B, samples) at 32 kHz -> (B, 1, 256, 1 + samples // 500), on the device of the waves.

        A second is (B, 1, 256, 65). The samples must be more than 2048, half an FFT.
        """
        self.to(wave.device)
        with torch.autocast(wave.device.type, enabled=False):
            parts = [self._mel(some.float()) for some in wave.split(SAMPLES_AT_ONCE)]
        return torch.cat(parts).unsqueeze(1)

    def _mel(self, wave: Tensor) -> Tensor:
        spectrum_BFT = torch.stft(
            wave, N_FFT, HOP, WINDOW, self.window, pad_mode="reflect", return_complex=True
        )
        power_BFT = spectrum_BFT.real.square() + spectrum_BFT.imag.square()
        mel_BTF = power_BFT.transpose(1, 2) @ self.filters
        return (mel_BTF.transpose(1, 2) + FLOOR).log()


def freq_mix_style(x: Tensor, p: float = 0.4, alpha: float = 0.3) -> Tensor:
    """Give every spectrogram a mixture of its own statistics and another's, per frequency.

    MixStyle (arXiv 2104.02008) with the mean and standard deviation taken over channels and time
    for each frequency, as in the DCASE baseline, so that what a device does to the spectrum is
    mixed. Random numbers come from torch's global generator on the CPU, whatever the device.

    Args:
        x: (B, 1, F, T).
        p: probability that the batch is changed.
        alpha: of the Beta(alpha, alpha) that the weights are drawn from.
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
    """Set one random band of each spectrogram to the spectrogram's mean.

    The frequency masking of SpecAugment (arXiv 1904.08779), a band for each sample. Random numbers
    as in `freq_mix_style`.

    Args:
        x: (B, 1, F, T).
        width: a band has from no bin to so many.
    """
    batch, _, bins, _ = x.shape
    widths = torch.randint(min(width, bins) + 1, (batch, 1))
    starts = (torch.rand(batch, 1) * (bins - widths + 1)).long()
    number = torch.arange(bins)
    masked = ((number >= starts) & (number < starts + widths)).view(batch, 1, bins, 1)
    return torch.where(masked.to(x.device), x.mean((1, 2, 3), keepdim=True), x)
