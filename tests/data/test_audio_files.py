"""Decoding and resampling audio files."""

from __future__ import annotations

import importlib
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from kdp.data import mel
from kdp.data.audio import duration, read_mono, read_wave, resampled
from kdp.data.scenes import scene_folder
from kdp.data.segments import segments
from kdp.errors import KdpError
from kdp.models.mobile import SCENES
from tests.conftest import ROOT
from tests.data.audio_helpers import FILES, sine

OPUS = {"opus": {"format": "OGG", "subtype": "OPUS"}}
"""Suffix -> what soundfile does not know by it."""


@pytest.mark.parametrize("content", [b"", b"no sound" * 99, b"RIFF\0\0"])
def test_a_corrupt_file_is_named_when_it_is_read(tau: Path, content: bytes) -> None:
    (tau / FILES[3]).write_bytes(content)
    (clip,) = scene_folder(tau, "test.csv", SCENES)
    with pytest.raises(KdpError, match=f"cannot read the sound .*{FILES[3]}: it is corrupt"):
        clip.read()
    with pytest.raises(KdpError, match=FILES[3]):
        segments([clip])


def test_an_empty_or_infinite_file_is_named(tmp_path: Path) -> None:
    for name, samples, fault in (("a.wav", [], "empty"), ("b.wav", [0.0, np.inf], "corrupt")):
        soundfile.write(tmp_path / name, np.array(samples), 8000, subtype="FLOAT")
        with pytest.raises(KdpError, match=f"{name} is {fault}"):
            read_mono(tmp_path / name)
    with pytest.raises(KdpError, match=r"gone\.wav does not exist"):
        read_mono(tmp_path / "gone.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_stereo_is_averaged_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"two.{suffix}"
    soundfile.write(path, np.stack([sine(300), np.zeros(32000)], 1), 32000)
    wave, rate = read_mono(path)
    assert (wave.shape, wave.dtype, rate) == ((32000,), np.float32, 32000)
    np.testing.assert_allclose(wave, sine(300) / 2, atol=0.02)
    assert duration(path) == 1.0


def test_resampling_keeps_the_pitch_and_removes_aliases() -> None:
    low, high = (sine(hertz, rate=44100).astype(np.float32) for hertz in (1000, 18000))
    assert resampled(low, 32000) is low
    np.testing.assert_allclose(resampled(low, 44100)[500:-500], sine(1000)[500:-500], atol=1e-3)
    assert abs(resampled(high, 44100)[500:-500]).max() < 1e-3


@pytest.mark.parametrize("package", ["soundfile", "soxr", "transformers"])
def test_a_missing_package_is_named_with_its_extra(
    tau: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = importlib.import_module

    def without(name: str, *more: Any) -> Any:
        if name.startswith(package):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(KdpError, match=rf"pip install soundfile soxr.*{package}"):
        mel.LogMel()(torch.from_numpy(read_wave(tau / FILES[0]))[None])


def test_no_audio_package_is_imported_before_it_is_needed() -> None:
    script = """
import sys
import kdp.data.mel, kdp.data.segments
from kdp.data.toy_scenes import toy_scenes
toy_scenes(False)[0].read()
print({"soundfile", "soxr", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "flac", "ogg", "opus", "w64", "rf64", "voc"])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"cut.{kind}"
    noise = np.random.default_rng(0).random(48000)  # Opus has no 32 kHz
    soundfile.write(path, sine(440, rate=48000) + 0.1 * noise, 48000, **OPUS.get(kind, {}))
    assert duration(path) == 1
    data = path.read_bytes()
    path.write_bytes(data[: max(300, int(len(data) * share))])
    for read in (duration, read_mono):
        with pytest.raises(KdpError, match=rf"cut\.{kind}.*(is cut off|corrupt)"):
            read(path)


@pytest.mark.parametrize("announced", [0xFFFFFFFF, 0x7FFFFFFF, 64044])
def test_a_length_that_is_unknown_or_off_by_eight_is_accepted(
    tmp_path: Path, announced: int
) -> None:
    path = tmp_path / "stream.wav"
    soundfile.write(path, sine(440), 32000)
    data = path.read_bytes()
    assert len(data) == 64044
    path.write_bytes(data[:4] + announced.to_bytes(4, "little") + data[8:])
    assert duration(path) == 1


@pytest.mark.parametrize("kind", [("wav", "FLOAT"), ("wav", "DOUBLE"), ("aiff", "FLOAT")])
@pytest.mark.parametrize("scale", [32767, 2**31, 128])
def test_samples_on_the_scale_of_integers_are_refused(
    tmp_path: Path, kind: tuple[str, str], scale: float
) -> None:
    path = tmp_path / f"loud.{kind[0]}"
    soundfile.write(path, sine(440) * scale, 32000, subtype=kind[1])
    for read in (duration, read_mono):
        with pytest.raises(KdpError, match=r"loud\..* has samples up to .*, where full scale is 1"):
            read(path)


@pytest.mark.parametrize("kind", ["wav", "aiff", "w64"])
def test_16_bit_numbers_in_32_bits_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"faint.{kind}"
    for scale, refused in ((2**15 - 1, True), (2**31 - 1, False), (0, False)):
        soundfile.write(path, (sine(440) * scale).astype(np.int32), 32000, subtype="PCM_32")
        for read in (duration, read_mono):
            with pytest.raises(KdpError, match="16-bit numbers as") if refused else nullcontext():
                read(path)


@pytest.mark.parametrize("peak", [0.5, 1.5, 3.9])
def test_floating_point_samples_may_exceed_full_scale(tmp_path: Path, peak: float) -> None:
    soundfile.write(tmp_path / "a.wav", 2 * peak * sine(440), 32000, subtype="FLOAT")
    assert np.abs(read_mono(tmp_path / "a.wav")[0]).max() == pytest.approx(peak, rel=1e-2)


@pytest.mark.parametrize("kind", ["ogg", "opus"])
@pytest.mark.parametrize("seconds", [0.01, 1, 30])
@pytest.mark.parametrize("tail", [b"", b"TAG" + bytes(125)])
def test_whole_pages_of_any_number_are_accepted(
    tmp_path: Path, kind: str, seconds: float, tail: bytes
) -> None:
    path = tmp_path / f"whole.{kind}"
    soundfile.write(path, sine(440, seconds, 16000), 16000, **OPUS.get(kind, {}))
    path.write_bytes(path.read_bytes() + tail)
    assert duration(path) == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize(("rate", "samples"), [(96_000, 1), (192_000, 2), (1_000_000, 15)])
def test_a_sound_shorter_than_a_sample_is_named(tmp_path: Path, rate: int, samples: int) -> None:
    path = tmp_path / "click.wav"
    soundfile.write(path, np.full(samples, 0.5), rate)
    assert len(read_mono(path)[0]) == samples
    with pytest.raises(KdpError, match=rf"click\.wav is too short: {samples} samples at {rate} Hz"):
        read_wave(path)
