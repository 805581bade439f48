"""Devices and pipes in the place of files are refused: they may have no end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdp.artifacts import load
from kdp.config.compose import load_config
from kdp.contents import Settings, read_json
from kdp.data.images import image_size, read_rgb
from kdp.data.voc import voc_folder
from kdp.data.yolo_yaml import yolo_yaml
from kdp.errors import KdpError
from kdp.files import append_line, sha256
from kdp.models import build
from kdp.models.audio_transformer import pretrained
from kdp.models.loading import load_network
from kdp.models.onnx_file import load_onnx
from kdp.stages.replacing import is_log_of_kdp
from kdp.training.curves import Curves

SECONDS = 10


def pretrained_in(path: Path) -> None:
    pytest.importorskip("transformers")
    signal.alarm(0)
    build("audio_transformer")  # importing it takes seconds
    signal.alarm(SECONDS)
    pretrained(path.parent, {})


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "artifact": ("a.pth", load),
    "Ultralytics": ("a.pt", load_network),
    "ONNX": ("a.onnx", load_onnx),
    "configuration": ("a.yml", load_config),
    "data set": ("data.yaml", lambda path: yolo_yaml(path, "train", ["a"])),
    "image": ("a.png", read_rgb),
    "size of an image": ("a.png", image_size),
    "JSON": ("info.json", lambda path: read_json(path, Settings)),
    "checksum": ("a.bin", sha256),
    "curves": ("curves.jsonl", lambda path: Curves(path.parent)),
    "notes": ("written.jsonl", lambda path: append_line(path, "a")),
    "transformers' configuration": ("config.json", pretrained_in),
    "transformers' weights": ("model.safetensors", pretrained_in),
}


@pytest.fixture(autouse=True)
def _within_seconds() -> Iterator[None]:
    """A reader that waits or reads for ever fails."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it does not end"))
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, link_to_zeros], ids=["pipe", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_what_has_no_end_is_refused(
    tmp_path: Path, reader: str, make: Callable[[Path], None]
) -> None:
    name, read = READERS[reader]
    make(tmp_path / name)
    with pytest.raises((KdpError, OSError)):
        read(tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, link_to_zeros], ids=["pipe", "device"])
def test_a_log_or_a_list_of_images_without_an_end_is_none(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "curves.csv")
    assert not is_log_of_kdp(tmp_path / "curves.csv")
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "JPEGImages/a.png").touch()
    make(tmp_path / "ImageSets/Main/train.txt")
    with pytest.raises(KdpError, match="has no split 'train'"):
        voc_folder(tmp_path, "train", ["a"])
