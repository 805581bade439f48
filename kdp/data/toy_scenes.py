"""A toy data set of acoustic scenes: band noise, a tone and pulses, through simulated devices.

It lets every command, and the reports by class and by device, run without a download. No class
sounds like its name, so a network trained on it has learned nothing about real scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from kdp.data.audio import RATE, Wave, resampled
from kdp.data.scenes import Clip
from kdp.models.mobile import SCENES

TRAINING_CLIPS, VALIDATION_CLIPS = 12, 6
"""Number of one-second clips per class."""
SEEN = ("a", "b", "c", "s1", "s2", "s3")
"""Devices in the training clips."""
DEVICES = (*SEEN, "s4", "s5", "s6")
"""Devices in the validation clips."""
SEED = 2024

Signal = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recipe:
    """Parameters of a scene; every clip varies them at random.

    Attributes:
        band: centre frequency of the noise, in Hz.
        octaves: bandwidth of the noise.
        tone: pitch of the tone, in Hz.
        beat: amplitude modulation of the tone, in Hz.
        pulses: bursts of noise per second.
        parts: amplitudes of noise, tone and bursts.
    """

    band: float
    octaves: float
    tone: float
    beat: float
    pulses: float
    parts: tuple[float, float, float]


RECIPES = (
    Recipe(1000, 2.5, 900, 2, 2, (1.0, 0.3, 0.2)),
    Recipe(150, 1.2, 110, 9, 1, (1.0, 0.8, 0.1)),
    Recipe(450, 1.5, 1900, 14, 6, (0.8, 0.5, 0.6)),
    Recipe(900, 1.5, 2600, 3, 4, (0.9, 0.8, 0.3)),
    Recipe(5000, 1.2, 3200, 6, 1, (0.8, 0.8, 0.1)),
    Recipe(1700, 2.0, 400, 5, 3, (0.9, 0.3, 0.5)),
    Recipe(2600, 1.2, 1100, 4, 5, (1.0, 0.5, 0.3)),
    Recipe(2200, 2.0, 700, 7, 7, (0.5, 0.3, 1.2)),
    Recipe(300, 2.5, 220, 3, 2, (1.0, 0.5, 0.2)),
    Recipe(250, 1.2, 700, 11, 9, (0.8, 0.8, 0.5)),
)
"""One per class, in the order of SCENES."""


def toy_scenes(validation: bool, rate: int = RATE) -> list[Clip]:
    """Generated one-second clips of the ten TAU classes, the same at every call.

    Twelve training clips per class from the devices a, b, c, s1, s2 and s3, or six validation clips
    from these and s4, s5 and s6, which are absent from training and colour the sound more.

    Args:
        validation: which of the two.
        rate: sampling rate in Hz; the sounds are generated at 32 kHz and resampled.
    """
    first, devices = (TRAINING_CLIPS, DEVICES) if validation else (0, SEEN)
    count = VALIDATION_CLIPS if validation else TRAINING_CLIPS
    return [
        _clip(label, number, devices[(label + number) % len(devices)], rate)
        for label in range(len(SCENES))
        for number in range(first, first + count)
    ]


def _clip(label: int, number: int, device: str, rate: int) -> Clip:
    name = f"{SCENES[label]}-toy-{number}-{device}"
    read = partial(_at_rate, label, number, device, rate)
    return Clip(name, label, device, f"toy-{number}", read, _one_second, rate=rate)


def _at_rate(label: int, number: int, device: str, rate: int) -> Wave:
    return resampled(_recorded(label, number, device), RATE, rate)


def _one_second() -> float:
    return 1.0


@lru_cache(maxsize=len(RECIPES) * (TRAINING_CLIPS + VALIDATION_CLIPS))
def _recorded(label: int, number: int, device: str) -> Wave:
    """(32000,): the scene filtered by the device, scaled so that it does not clip.

    Kept in memory, 23 MB in all: making a clip takes longer than a small network needs for it.
    """
    random = np.random.default_rng((SEED, label, number))
    spectrum = np.fft.rfft(_scene(RECIPES[label], random)) * _response(device)
    wave = np.fft.irfft(spectrum, RATE)
    recorded: Wave = (wave / max(1.0, np.abs(wave).max())).astype(np.float32)
    recorded.flags.writeable = False
    return recorded


def _scene(recipe: Recipe, random: np.random.Generator) -> Signal:
    """(32000,) of about 0.05 root mean square; pitches vary by up to a quarter of an octave."""
    band, tone, beat, pulses = (
        value * 2 ** random.uniform(-0.25, 0.25)
        for value in (recipe.band, recipe.tone, recipe.beat, recipe.pulses)
    )
    sources = (
        _noise(band, recipe.octaves, random),
        _tone(tone, beat, random),
        _noise(2 * band, 3.0, random) * _bursts(pulses, random),
    )
    background = _noise(600, 5.0, random) * random.uniform(0.1, 0.5)
    parts = [
        part * 2 ** random.uniform(-0.5, 0.5) * _unit(source)
        for part, source in zip(recipe.parts, sources, strict=True)
    ]
    return 0.05 * 2 ** random.uniform(-0.5, 0.5) * _unit(sum(parts, background))


def _noise(centre: float, octaves: float, random: np.random.Generator) -> Signal:
    """Pink noise under a Gaussian in log-frequency, of unit root mean square."""
    phases = np.exp(2j * np.pi * random.random(RATE // 2 + 1))
    frequencies = np.maximum(np.arange(RATE // 2 + 1), 1)
    distance = np.log2(frequencies / centre) / (octaves / 2)
    return _unit(np.fft.irfft(np.exp(-0.5 * distance**2) / np.sqrt(frequencies) * phases, RATE))


def _tone(pitch: float, beat: float, random: np.random.Generator) -> Signal:
    """Three harmonics with sinusoidal amplitude modulation."""
    time = np.arange(RATE) / RATE
    turns = random.random(4)
    tone = sum(np.sin(2 * np.pi * (pitch * n * time + turns[n])) / n**1.5 for n in (1, 2, 3))
    swell: Signal = tone * (1 + 0.8 * np.sin(2 * np.pi * (beat * time + turns[0])))
    return swell


def _bursts(rate: float, random: np.random.Generator) -> Signal:
    """An envelope of `rate` jittered, exponentially decaying pulses per second."""
    time, envelope = np.arange(RATE) / RATE, np.full(RATE, 1e-3)
    starts = np.arange(random.random() / rate, 1, 1 / rate)
    for start in starts + random.uniform(-0.1, 0.1, len(starts)) / rate:
        since = time - start
        envelope += np.where(since >= 0, np.exp(-np.maximum(since, 0) / 0.03), 0)
    return envelope


def _unit(signal: Signal) -> Signal:
    """Scale to a root mean square of one."""
    scaled: Signal = signal / np.sqrt(np.mean(signal**2))
    return scaled


@lru_cache(maxsize=len(DEVICES))
def _response(device: str) -> Signal:
    """(16001,) gain at each Hz: a random curve over nine octaves plus a random overall gain."""
    random = np.random.default_rng((SEED, 1_000_000, DEVICES.index(device)))
    knots = np.linspace(np.log2(31), np.log2(RATE / 2), 10)
    spread = 5 if device in SEEN else 8
    decibels = random.normal(0, spread, len(knots)) + random.uniform(-4, 4)
    octave = np.log2(np.maximum(np.arange(RATE // 2 + 1), 1))
    gain: Signal = 10 ** (np.interp(octave, knots, decibels) / 20)
    return gain
