"""Images, sounds and folders that stand for more than they hold."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from kdp.data.audio import read_mono
from kdp.data.images import read_rgb
from kdp.data.yolo_yaml import yolo_yaml
from kdp.errors import KdpError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path: Path, side: int, bits: int = 1) -> Path:
    """A grey PNG whose rows are zeros."""
    head = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side * bits + 7) // 8 + 1) * min(side, 64))
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def bmp(path: Path, side: int) -> Path:
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 1, 0, 0, 0, 0, 2, 2)
    path.write_bytes(b"BM" + struct.pack("<IHHI", 62, 0, 0, 62) + head + bytes(8))
    return path


def tiff(path: Path, side: int) -> Path:
    Image.new("1", (64, 64)).save(path, "TIFF")
    data = path.read_bytes()
    for tag in (256, 257):  # width and height, as 32-bit values
        before = struct.pack("<HHI", tag, 4, 1) + struct.pack("<I", 64)
        after = struct.pack("<HHI", tag, 4, 1) + struct.pack("<I", side)
        data = data.replace(before, after)
        short = struct.pack("<HHI", tag, 3, 1) + struct.pack("<HH", 64, 0)
        data = data.replace(short, after)
    path.write_bytes(data)
    return path


def portable(path: Path, side: int) -> Path:
    """A format that OpenCV reads by its content, whatever the file is called."""
    path.write_bytes(b"P4\n%d %d\n" % (side, side) + bytes(64))
    return path


@pytest.mark.parametrize("write", [png, bmp, tiff])
def test_images_are_refused_by_their_headers(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    path = write(tmp_path / f"a.{write.__name__}", 32_000)
    with pytest.raises(KdpError, match="megapixels"):
        read_rgb(path)


CHECK = """
import re, sys
from pathlib import Path
from kdp.data.images import read_rgb
from kdp.errors import KdpError
def peak():  # in kilobytes; `ru_maxrss` would be at least that of the process that started this
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
for path in sys.argv[1:]:
    try:
        read_rgb(Path(path))
    except KdpError:
        continue
    raise SystemExit(f"{path} was read")
raise SystemExit(peak() - before > 100_000)
"""


def test_no_memory_is_taken_for_them(tmp_path: Path) -> None:
    writers = (png, bmp, tiff, portable)
    paths = [str(write(tmp_path / f"{write.__name__}.png", 32_000)) for write in writers]
    done = subprocess.run([sys.executable, "-c", CHECK, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [(5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_channels_are_in_the_order_of_rgb(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image[:, :, 3:] = 255  # opaque
    cv2.imwrite(str(tmp_path / "a.png"), image)
    colours = image if shape[2] > 1 else np.repeat(image, 3, axis=2)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), colours[..., 2::-1])


def test_a_sound_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.setattr("kdp.data.audio.MAX_SAMPLES", 1000)
    for name, channels in (("a.wav", 1), ("b.flac", 2)):
        soundfile.write(tmp_path / name, np.zeros((1001 // channels + 1, channels)), 32_000)
        with pytest.raises(KdpError, match="more than 1,000 samples"):
            read_mono(tmp_path / name)


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "inner").mkdir(parents=True)
    for name in ("a", "b"):  # two of them: paths would multiply
        (images / "inner" / name).symlink_to(images)
    (images / "loop").symlink_to("loop")
    cv2.imwrite(str(images / "inner" / "x.png"), np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "labels" / "inner").mkdir(parents=True)
    (tmp_path / "labels" / "inner" / "x.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [a]\n")
    assert len(yolo_yaml(tmp_path / "data.yaml", "train", ["a"])) == 1
