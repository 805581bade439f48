"""Acoustic scenes: folders in TAU's layout, generated scenes, segments, and the mel front end."""

from __future__ import annotations

import csv
import importlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from kdp.data import mel
from kdp.data.audio import duration, read_mono, read_wave, resampled
from kdp.data.scenes import Clip, scene_folder, tau_folder
from kdp.data.segments import SegmentDataset, check_disjoint, segments, votes, waves
from kdp.data.toy_scenes import DEVICES, SEEN, toy_scenes
from kdp.errors import KdpError
from kdp.models.mobile import SCENES
from tests.conftest import ROOT

FILES = (
    "audio/airport-barcelona-0-0-a.wav",
    "audio/airport-barcelona-0-0-s1.wav",
    "audio/bus-lyon-1000-40-b.wav",
    "audio/tram-vienna-7-3-s4.wav",
)
HEADER = ("filename", "scene_label", "identifier", "source_label")


def table(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])


def sine(hertz: float, seconds: float = 1.0, rate: int = 32000) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def made(name: str, seconds: float = 1.0, label: int = 0) -> Clip:
    """A clip whose every segment is recognisable; its length is known by reading alone."""
    wave = np.linspace(0.1, 0.9, round(seconds * 32000), dtype=np.float32) + label
    return Clip(name, label, "a", "here", lambda: wave)


@pytest.fixture
def tau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A miniature of TAU, known by TAU24_PATH: a second of 44.1 kHz per file."""
    folder = tmp_path / "tau"
    (folder / "audio").mkdir(parents=True)
    rows = []
    for number, name in enumerate(FILES):
        soundfile.write(folder / name, sine(440 * (number + 1), rate=44100), 44100)
        scene, city, spot, _, device = Path(name).stem.split("-")
        rows.append((name, scene, f"{city}-{spot}", device))
    table(folder / "meta.csv", HEADER, rows)
    table(folder / "split5.csv", ("filename",), [(name,) for name in FILES[2::-1]])
    table(folder / "test.csv", ("filename", "scene_label"), [(FILES[3], "tram")])
    monkeypatch.setenv("TAU24_PATH", str(folder))
    return folder


@lru_cache(maxsize=1)
def log_mel() -> mel.LogMel:
    return mel.LogMel()


def numpy_log_mel(wave: Any) -> Any:
    """The front end from its definition, in float64: no torch, no transformers."""
    padded = np.pad(wave.astype(np.float64), 2048, mode="reflect")
    hann = np.zeros(4096)
    hann[512:3584] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(3072) / 3072)
    frames = np.stack([padded[i * 500 : i * 500 + 4096] for i in range(65)])
    power = np.abs(np.fft.fft(hann * frames)[:, :2049]) ** 2
    top = 2595 * np.log10(1 + 16000 / 700)
    edges = 700 * (10 ** (np.arange(258) * top / 257 / 2595) - 1)
    hertz = np.arange(2049) * 32000 / 4096
    found = np.empty((256, 65))
    for i in range(256):
        low, middle, high = edges[i : i + 3]
        rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
        found[i] = power @ np.clip(np.minimum(rising, falling), 0, None)
    return np.log(found + 1e-5)


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
    ours = log_mel()(torch.from_numpy(batch))
    assert ours.shape == (3, 1, 256, 65)
    for spectrogram, wave in zip(ours[:, 0].numpy(), batch, strict=True):
        assert_same_spectrum(spectrogram, numpy_log_mel(wave))


def test_a_tone_is_loudest_where_htk_puts_it() -> None:
    found = log_mel()(torch.from_numpy(sine(1000).astype(np.float32))[None])
    expected = np.log10(1 + 1000 / 700) / np.log10(1 + 16000 / 700) * 257 - 1
    assert abs(int(found[0, 0, :, 32].argmax()) - expected) < 1


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
    for one, other in zip(mixed, x, strict=True):
        normed = [(y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True) for y in (one, other)]
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
    for one, before, band in zip(masked, x, changed, strict=True):
        where = band.nonzero().flatten()
        assert torch.equal(where, torch.arange(len(where)) + (where[0] if len(where) else 0))
        # The mean of one spectrogram and of one in a batch may be summed in another order.
        torch.testing.assert_close(one[:, band], before.mean().expand_as(one[:, band]))


def test_augmentation_repeats_with_torchs_seed() -> None:
    def changed() -> Tensor:
        torch.manual_seed(7)
        return mel.frequency_mask(mel.freq_mix_style(spectrograms(), p=1.0))

    assert torch.equal(changed(), changed())


def test_tau_is_read_as_it_is_laid_out(tau: Path) -> None:
    clips = scene_folder(tau_folder(None), "split5.csv", SCENES)
    assert [clip.name for clip in clips] == [FILES[2], FILES[1], FILES[0]]
    assert [clip.label for clip in clips] == [1, 0, 0]
    assert [clip.device for clip in clips] == ["b", "s1", "a"]
    assert [clip.place for clip in clips] == ["lyon-1000", "barcelona-0", "barcelona-0"]
    (test,) = scene_folder(tau_folder(None), "test.csv", SCENES)
    wave = test.read()
    assert (wave.shape, wave.dtype) == ((32000,), np.float32)
    np.testing.assert_allclose(wave[500:-500], sine(1760)[500:-500], atol=1e-3)


def test_without_source_label_the_file_name_says_the_device(tau: Path) -> None:
    rows = [(name, "bus", "lyon-1") for name in FILES]
    table(tau / "meta.csv", HEADER[:3], rows)
    clips = scene_folder(tau, "split5.csv", SCENES)
    assert [clip.device for clip in clips] == ["b", "s1", "a"]


def test_the_folder_in_the_configuration_comes_first(tau: Path) -> None:
    assert tau_folder(None) == tau
    assert tau_folder(Path("elsewhere")) == Path("elsewhere")


def test_no_folder_says_both_ways_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAU24_PATH", raising=False)
    with pytest.raises(KdpError, match=r"set `folder` in the configuration.*TAU24_PATH"):
        tau_folder(None)


def break_label(folder: Path) -> None:
    table(folder / "meta.csv", HEADER, [(name, "buss", "lyon-1", "a") for name in FILES])


def break_cell(folder: Path) -> None:
    table(folder / "meta.csv", HEADER, [(FILES[0], "bus", "lyon-1", "a"), (FILES[1],)])


@pytest.mark.parametrize(
    ("spoil", "split", "line"),
    [
        (lambda f: None, "split7.csv", "has no split split7.csv; available: split5.csv, test.csv"),
        (lambda f: (f / "meta.csv").unlink(), "test.csv", "has no meta.csv"),
        (lambda f: f.rename(f.with_name("gone")), "test.csv", "tau does not exist"),
        (break_label, "test.csv", r"meta.csv: audio/tram-.*'buss'.*did you mean 'bus'"),
        (break_cell, "test.csv", r"meta.csv, line 3: scene_label is empty"),
        (
            lambda f: table(f / "meta.csv", HEADER[:2], []),
            "test.csv",
            "meta.csv has no column 'identifier'; it has: filename, scene_label",
        ),
        (
            lambda f: table(f / "test.csv", ("filename",), [("audio/new.wav",)]),
            "test.csv",
            "test.csv has audio/new.wav, which .*meta.csv does not have",
        ),
        (lambda f: (f / FILES[3]).unlink(), "test.csv", r"no file of .*test.csv exists \(1 "),
        (lambda f: (f / "meta.csv").write_bytes(b"\xff\xfe"), "test.csv", "cannot read .*meta.csv"),
    ],
)
def test_a_bad_folder_is_one_line(
    tau: Path, spoil: Callable[[Path], Any], split: str, line: str
) -> None:
    spoil(tau)
    with pytest.raises(KdpError, match=line) as error:
        scene_folder(tau, split, SCENES)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_and_left_out(tau: Path, messages: list[str]) -> None:
    (tau / FILES[0]).unlink()
    clips = scene_folder(tau, "split5.csv", SCENES)
    assert [clip.name for clip in clips] == [FILES[2], FILES[1]]
    assert messages == [f"{tau / 'split5.csv'}: 1 missing recordings left out: {FILES[0]}"]


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


def test_resampling_keeps_the_pitch_and_drops_what_has_no_place() -> None:
    low, high = (sine(hertz, rate=44100).astype(np.float32) for hertz in (1000, 18000))
    assert resampled(low, 32000) is low
    np.testing.assert_allclose(resampled(low, 44100)[500:-500], sine(1000)[500:-500], atol=1e-3)
    assert abs(resampled(high, 44100)[500:-500]).max() < 1e-3


@pytest.mark.parametrize("package", ["soundfile", "soxr", "transformers"])
def test_a_package_that_is_missing_is_named_with_its_extra(
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


def test_real_sounds_of_five_seconds_are_five_segments(shared: Path) -> None:
    folder = shared / "data" / "esc10"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    with (folder / "meta.csv").open() as file:
        classes = sorted({row["scene_label"] for row in csv.DictReader(file, delimiter="\t")})
    train, test = (scene_folder(folder, f"{name}.csv", classes) for name in ("split100", "test"))
    check_disjoint(train, test)
    assert (len(train), len(test)) == (240, 80)
    assert Counter(clip.label for clip in test) == dict.fromkeys(range(10), 8)
    five = [clip for clip in test if 5 <= duration(folder / clip.name) < 6]
    assert len(five) > 70
    pieces = segments(five)
    assert [piece.start for piece in pieces] == [0, 32000, 64000, 96000, 128000] * len(five)
    found = torch.stack(list(waves(pieces[:10])))
    assert found.shape == (10, 32000)
    # ESC-50 fills sounds shorter than five seconds with silence: not every segment has sound.
    assert found[::5].abs().amax(1).min() > 0


def test_clips_are_cut_without_the_rest_and_short_ones_are_padded() -> None:
    clips = [made("long", 2.9), made("short", 0.25), made("one")]
    pieces = segments(clips)
    assert [(p.clip.name, p.start) for p in pieces] == [
        ("long", 0),
        ("long", 32000),
        ("short", 0),
        ("one", 0),
    ]
    first, second, short, _ = waves(pieces)
    check_near(torch.cat([first, second]), clips[0].read()[:64000])
    check_near(short[:8000], clips[1].read())
    assert not short[8000:].any()


def check_near(found: Tensor, wave: Any) -> None:
    """Equal but for rounding to 16 bits."""
    torch.testing.assert_close(found, torch.from_numpy(wave), atol=2e-5, rtol=0)


def test_lengths_come_from_headers_alone(tau: Path) -> None:
    def never() -> Any:
        raise AssertionError("decoded")

    clips = [replace(c, read=never) for c in scene_folder(tau, "split5.csv", SCENES)]
    assert len(segments(clips)) == 3


def test_silence_stays_silent() -> None:
    silent = replace(made("silent"), read=lambda: np.zeros(32000, np.float32))
    (wave,) = waves(segments([silent]))
    assert torch.equal(wave, torch.zeros(32000))


def test_a_clip_shorter_than_its_header_says_is_named() -> None:
    clip = replace(made("cut off", 1.5), seconds=lambda: 3.0)
    with pytest.raises(KdpError, match="cut off is shorter than its header says"):
        list(waves(segments([clip])))


def test_every_epoch_has_every_segment_in_another_order() -> None:
    data = SegmentDataset([made("a", 3, 0), made("b", 4, 1)], seed=0, length=21)
    numbers = [int(data[i]["segment"]) for i in range(21)]
    epochs = [numbers[first : first + 7] for first in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(int(data[i]["label"]) == (n >= 3) for i, n in enumerate(numbers))
    assert data[0]["wave"].shape == (32000,)
    assert data[0]["wave"].dtype == torch.float32
    assert data[0]["segment"].dtype == torch.int64
    assert len(data) == 21


def test_a_sample_depends_on_nothing_but_the_seed_and_its_number() -> None:
    clips = [made("a", 3), made("b", 4, 1)]
    one, other = (SegmentDataset(clips, seed=5, length=30) for _ in range(2))
    expected = [one[i] for i in range(30)]
    for i in (29, 0, 13, 13, 28):
        assert all(torch.equal(value, other[i][key]) for key, value in expected[i].items())
    changed = SegmentDataset(clips, seed=6, length=30)
    assert any(not torch.equal(changed[i]["wave"], expected[i]["wave"]) for i in range(30))


def test_a_roll_is_a_circle_of_at_most_a_tenth_of_a_second() -> None:
    data = SegmentDataset([made("a")], seed=0, length=200)
    plain = SegmentDataset([made("a")], seed=0, length=1, roll=0)[0]["wave"]
    check_near(plain, made("a").read())
    shifts = []
    for i in range(200):
        wave = data[i]["wave"]
        shift = int(wave.argmin())
        shift -= 32000 * (shift > 16000)
        assert torch.equal(wave.roll(-shift), plain)
        shifts.append(shift)
    assert -3200 <= min(shifts) < -2000
    assert 2000 < max(shifts) <= 3200


def test_a_full_cache_decodes_again_and_changes_nothing() -> None:
    reads: Counter[str] = Counter()

    def counted(clip: Clip) -> Clip:
        def read() -> Any:
            reads[clip.name] += 1
            return clip.read()

        return replace(clip, read=read, seconds=lambda: 1.0)

    clips = [counted(made(str(i), label=i)) for i in range(4)]
    room = SegmentDataset(clips, seed=0, length=40)
    all_cached = [room[i]["wave"] for i in range(40)]
    assert set(reads.values()) == {1}
    reads.clear()
    tight = SegmentDataset(clips, seed=0, length=40, cache_bytes=2 * 64000)
    assert all(torch.equal(tight[i]["wave"], all_cached[i]) for i in range(40))
    assert sorted(reads.values()) == [1, 1, 10, 10]


def test_a_clip_is_what_the_mean_over_its_segments_says() -> None:
    pieces = segments([made("x", 3, 0), made("y", 1, 1), made("z", 2, 2)])
    probabilities = torch.tensor(
        [
            [0.9, 0.1, 0.0],
            [0.4, 0.6, 0.0],
            [0.4, 0.6, 0.0],
            [0.2, 0.5, 0.3],
            [0.5, 0.5, 0.0],
            [0.4, 0.6, 0.0],
        ]
    )
    order = torch.tensor([0, 3, 1, 4, 2, 5])
    for numbers in (torch.arange(6), order):
        labels, found = votes(probabilities[numbers], [pieces[i] for i in numbers])
        assert labels.tolist() == [0, 1, 2]
        assert found.tolist() == [0, 1, 1]


def test_a_clip_in_both_splits_is_named() -> None:
    check_disjoint([made("a"), made("b")], [made("c")])
    with pytest.raises(KdpError, match=r"1 clips are in both .* such as b"):
        check_disjoint([made("a"), made("b")], [made("b")])


def test_toy_scenes_are_the_same_at_every_call_and_all_differ() -> None:
    train, test = toy_scenes(False), toy_scenes(True)
    check_disjoint(train, test)
    assert Counter(clip.label for clip in train) == dict.fromkeys(range(10), 12)
    assert Counter(clip.label for clip in test) == dict.fromkeys(range(10), 6)
    assert {clip.device for clip in train} == set(SEEN)
    assert {clip.device for clip in test} == set(DEVICES)
    read = [clip.read() for clip in test]
    again = [clip.read() for clip in toy_scenes(True)]
    assert all(np.array_equal(*pair) for pair in zip(read, again, strict=True))
    assert len({wave.tobytes() for wave in read}) == len(read)
    assert all(w.shape == (32000,) and w.dtype == np.float32 and abs(w).max() <= 1 for w in read)
    assert len(segments(test)) == len(test)


def mean_spectra(clips: list[Clip]) -> tuple[Tensor, Tensor]:
    """(clips, 256) log-mel over time, and (clips,) labels."""
    batch = torch.stack([torch.from_numpy(clip.read()) for clip in clips])
    return log_mel()(batch).mean((1, 3)), torch.tensor([clip.label for clip in clips])


def test_toy_scenes_can_be_told_apart_but_not_easily() -> None:
    known, labels = mean_spectra(toy_scenes(False))
    centroids = torch.stack([known[labels == label].mean(0) for label in range(10)])
    test = toy_scenes(True)
    spectra, truth = mean_spectra(test)
    right = torch.cdist(spectra, centroids).argmin(1) == truth
    unseen = torch.tensor([clip.device not in SEEN for clip in test])
    assert 0.4 < float(right[unseen].float().mean()) < 0.9
    assert 0.4 < float(right[~unseen].float().mean()) < 0.95
