"""Fixtures of the data tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.data.audio_helpers import FILES, HEADER, sine, table


@pytest.fixture
def tau(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A miniature of TAU at TAU24_PATH: one second at 44.1 kHz per file."""
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
