"""Checkpoints of Ultralytics: reading and writing them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from kdp.errors import KdpError
from kdp.models.safe_unpickle import load_without_code
from kdp.models.torchvision_shim import install
from kdp.models.ultralytics import import_ultralytics
from kdp.models.ultralytics_file import read_ultralytics, write_ultralytics
from kdp.types import Arch
from tests.models.ultralytics_helpers import (
    CLASSES,
    broken_torchvision,
    equal,
    needs_ultralytics,
    network,
    run,
    validate,
)


@needs_ultralytics
@pytest.mark.parametrize("half", [False, True])
def test_the_best_weights_of_a_training_are_read(half: bool, tmp_path: Path) -> None:
    model = network("yolo11s.yaml")
    model.names = dict(enumerate(CLASSES))
    saved = model.half() if half else model
    content = {"model": saved, "ema": None, "train_args": {"imgsz": 330}, "epoch": -1}
    torch.save(content, tmp_path / "best.pt")
    params, arch = read_ultralytics(tmp_path / "best.pt")
    assert equal(params, model)
    args = {"scale": "s", "classes": CLASSES, "image_size": 352}
    assert arch == Arch("yolo11", args)


@needs_ultralytics
def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    raw, averaged = network(seed=1), network(seed=2)
    for content in ({"model": raw, "ema": averaged}, {"model": None, "ema": averaged}):
        torch.save({**content, "train_args": {}}, tmp_path / "last.pt")
        params, arch = read_ultralytics(tmp_path / "last.pt")
        assert equal(params, averaged)
        assert arch.args["image_size"] == 640


@needs_ultralytics
def test_a_file_saved_by_ultralytics_is_read(tmp_path: Path) -> None:
    model = import_ultralytics().YOLO("yolo11n.yaml")
    model.model = network()
    model.save(tmp_path / "own.pt")
    params, arch = read_ultralytics(tmp_path / "own.pt")
    assert equal(params, model.model)
    assert arch.args == {"scale": "n", "classes": ["0", "1", "2"], "image_size": 640}


@needs_ultralytics
@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("yolo11n-seg.yaml", "SegmentationModel", "holds a SegmentationModel"),
        ("yolo11n-obb.yaml", "OBBModel", "holds a OBBModel"),
        ("yolov8n.yaml", "DetectionModel", "holds yolov8n, which is not YOLO11"),
        ("yolo12n.yaml", "DetectionModel", "holds yolo12n, which is not YOLO11"),
        ("yolo26n.yaml", "DetectionModel", "yolo26n with an end-to-end head"),
    ],
)
def test_other_networks_are_refused(name: str, kind: str, reason: str, tmp_path: Path) -> None:
    torch.save({"model": network(name, kind=kind), "ema": None}, tmp_path / "other.pt")
    with pytest.raises(KdpError, match=reason):
        read_ultralytics(tmp_path / "other.pt")


@needs_ultralytics
def test_a_fused_network_is_refused(tmp_path: Path) -> None:
    torch.save({"model": network().eval().fuse(verbose=False)}, tmp_path / "fused.pt")
    with pytest.raises(KdpError, match="fused"):
        read_ultralytics(tmp_path / "fused.pt")


@needs_ultralytics
def test_the_scale_may_come_from_the_file_name(tmp_path: Path) -> None:
    model = network("yolo11s.yaml")
    model.yaml = {key: value for key, value in model.yaml.items() if key != "scale"}
    model.yaml["yaml_file"] = "cells.yaml"
    torch.save({"model": model}, tmp_path / "yolo11s_cells.pt")
    assert read_ultralytics(tmp_path / "yolo11s_cells.pt")[1].args["scale"] == "s"
    os.rename(tmp_path / "yolo11s_cells.pt", tmp_path / "cells.pt")
    with pytest.raises(KdpError, match="does not say its scale"):
        read_ultralytics(tmp_path / "cells.pt")


# Writing


@needs_ultralytics
def test_a_written_file_is_read_back_equal(tmp_path: Path) -> None:
    model, path = network(), tmp_path / "weights" / "cells.pt"
    state = torch.get_rng_state()
    write_ultralytics(path, model.state_dict(), "n", CLASSES, 320, {"mAP50": 0.5})
    assert torch.equal(torch.get_rng_state(), state)
    params, arch = read_ultralytics(path)
    assert equal(params, model)
    assert arch.args == {"scale": "n", "classes": CLASSES, "image_size": 320}
    assert load_without_code(path)["train_metrics"] == {"mAP50": 0.5}


@needs_ultralytics
def test_mismatched_weights_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "cells.pt"
    path.write_text("old")
    with pytest.raises(KdpError, match="not a full yolo11s"):
        write_ultralytics(path, network().state_dict(), "s", CLASSES, 320, {})
    with pytest.raises(KdpError, match=r"end in \.pt"):
        write_ultralytics(tmp_path / "a.pth", network().state_dict(), "n", CLASSES, 320, {})
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["cells.pt"]


ELSEWHERE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "kdp": raise ImportError("kdp is not here")
sys.meta_path.insert(0, Blocked())
import json, pathlib, torch
stand_in = {stand_in}
if stand_in:
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"): torch.library.define("torchvision::" + name, schema)
    import torchvision
    from ultralytics.utils.nms import TorchNMS
    torchvision.ops.nms = TorchNMS.nms
from ultralytics import YOLO
model = YOLO("cells.pt")
assert not any(name.split(".")[0] == "kdp" for name in sys.modules)
options = dict(imgsz=64, device="cpu", verbose=False)
val = model.val(data="data.yaml", project={project!r}, batch=2, workers=0, plots=False, **options)
(found,) = YOLO("cells.pt").predict("data/images/0.png", conf=1e-6, max_det=20, **options)
result = dict(names=found.names, boxes=found.boxes.data.tolist(), task=model.task,
              metrics=[val.box.map, val.box.map50, *val.box.maps])
pathlib.Path("result.json").write_text(json.dumps(result))
"""


@needs_ultralytics
def test_ultralytics_runs_a_written_file_without_kdp(
    ultralytics_data: Path, tmp_path: Path
) -> None:
    install()
    threads = torch.get_num_threads()
    model = import_ultralytics().YOLO("yolo11n.yaml")
    model.model = network()
    model.model.names = dict(enumerate(CLASSES))
    params = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    write_ultralytics(tmp_path / "cells.pt", params, "n", CLASSES, 64, {})
    code = ELSEWHERE.format(stand_in=broken_torchvision(), project=str(tmp_path / "there"))
    folder = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": str(tmp_path / "c")}
    done = run(code, tmp_path, **folder)
    assert done.returncode == 0, done.stderr
    there = json.loads((tmp_path / "result.json").read_text())
    assert there["names"] == {str(i): name for i, name in enumerate(CLASSES)}
    # The two processes may compute with different numbers of threads.
    metrics = validate(model, ultralytics_data, tmp_path / "here")
    assert there["metrics"] == pytest.approx(metrics, abs=1e-3)
    options = {"imgsz": 64, "device": "cpu", "verbose": False, "conf": 1e-6, "max_det": 20}
    again = import_ultralytics().YOLO("yolo11n.yaml")
    again.model = network()
    (detections,) = again.predict(str(tmp_path / "data/images/0.png"), **options)
    torch.set_num_threads(threads)
    assert len(there["boxes"]) > 5
    assert torch.allclose(torch.tensor(there["boxes"]), detections.boxes.data, atol=1e-3)
