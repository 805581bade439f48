"""Importing Ultralytics, with and without a working torchvision."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from kdp.errors import KdpError
from kdp.models.torchvision_shim import install
from kdp.models.ultralytics import NEEDED, import_ultralytics
from tests.models.ultralytics_helpers import broken_torchvision, needs_ultralytics, run, validate

# The import


ALONE = """
import os, socket, sys
def refuse(*args, **kwargs): raise OSError("no network here")
socket.socket = type("Blocked", (socket.socket,), {"__init__": refuse})
socket.create_connection = socket.getaddrinfo = refuse
def seen(event, args): assert not event.startswith("socket."), event
sys.addaudithook(seen)
import cv2, numpy, torch
os.environ.pop("OMP_NUM_THREADS", None)
torch.set_num_threads(2); cv2.setNumThreads(2)
before = dict(os.environ)
from kdp.models.ultralytics import import_ultralytics
assert "ultralytics" not in sys.modules
model = import_ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
for name in ("loss", "nms", "metrics"):
    import_ultralytics(f"utils.{name}")
assert torch.get_num_threads() == 2 and cv2.getNumThreads() == 2
changed = {key for key in os.environ if os.environ[key] != before.get(key)}
assert {key for key in changed if not key.startswith("YOLO_")} == set(), changed
assert "torchvision" not in sys.modules
folder = os.environ["YOLO_CONFIG_DIR"]
assert os.path.isdir(folder)
open("folder", "w").write(folder)
"""


@needs_ultralytics
def test_the_import_is_silent_and_leaves_the_process_unchanged(tmp_path: Path) -> None:
    done = run(ALONE, tmp_path, HOME=str(tmp_path))
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert not Path((tmp_path / "folder").read_text()).exists()


@needs_ultralytics
def test_a_configured_folder_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = run(
        "import kdp.models.ultralytics as u; u.import_ultralytics()",
        tmp_path,
        YOLO_CONFIG_DIR=str(own),
    )
    assert done.returncode == 0, done.stderr
    assert (own / "Ultralytics").is_dir()


@pytest.mark.parametrize("version", [None, "8.3.200", "8.4.139", "8.5.0"])
def test_a_missing_or_unsupported_version_is_rejected(
    version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed_version(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    for name in [name for name in sys.modules if name.split(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.metadata, "version", installed_version)
    with pytest.raises(KdpError, match=r"pip install 'ultralytics>=") as caught:
        import_ultralytics("nn.tasks")
    assert str(caught.value) == NEEDED


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ultralytics"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "8.4.190")
    with pytest.raises(KdpError, match=r"pip install 'ultralytics>="):
        import_ultralytics("nn.tasks")


def test_the_stand_in_is_announced_once_and_only_where_needed(tmp_path: Path) -> None:
    """It also repairs an import that failed before."""
    code = """
from kdp.log import set_up_logging
from kdp.models.torchvision_shim import install
set_up_logging()
try: import torchvision
except (ImportError, RuntimeError): pass
install()
install()
"""
    if importlib.util.find_spec("torchvision") is not None:
        code += "import torchvision.ops"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("stand-in") == broken_torchvision()
    assert len(done.stderr.splitlines()) == broken_torchvision()


@needs_ultralytics
def test_ultralytics_validates_in_the_same_process(ultralytics_data: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    install()
    model = import_ultralytics().YOLO("yolo11n.yaml")
    model.model = import_ultralytics("nn.tasks").DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    assert len(validate(model, ultralytics_data, tmp_path / "runs")) == 5
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    import torchvision

    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist() == [1, 2]
    torch.set_num_threads(threads)
