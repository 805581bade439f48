"""Files that the cases change: tiny networks of every family, data sets, configurations."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import soundfile
import torch
import yaml
from torch import nn

from kdp.artifacts import Artifact, make_record, save
from kdp.models import build
from kdp.types import Arch
from tests.conftest import TINY
from tests.models.face_mask_helpers import SMALL as FACES
from tests.models.yolo_helpers import ARCH as YOLO
from tests.models.yolo_helpers import write_voc
from tests.tasks.test_scenes import SMALL as SCENES

SHORT: dict[str, Any] = {"steps": 1, "batch_size": 2, "validate_every": 1, "checkpoint_every": 1}
ARCHS = {
    "faces": Arch("mask_classifier", FACES),
    "super": Arch("catanet", TINY),
    "scenes": Arch("rep_mobile", SCENES),
    "boxes": YOLO,
}
OWN_SIZES = ("upscale", "dim", "tab_heads", "tab_neurons", "lrsa_heads", "lrsa_neurons")
FOREIGN = {name: TINY[name] for name in OWN_SIZES}
"""A CATANet that is recognised by its weights: its other sizes are the published ones."""


def settings(base: Path, family: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    """A small configuration of a family, of its own: trains, distils, prunes, measures.

    Args:
        base: the folder of `write_base`.
        family: a key of `ARCHS`.
        data: section of the samples; those in `base` if not given.
    """
    sets = {
        "faces": {},
        "super": {"kind": "hr_only", "hr": f"{base}/images"},
        "scenes": {"kind": "scenes", "folder": f"{base}/sounds", "split": "list.csv"},
        "boxes": {"kind": "voc", "folder": f"{base}/voc", "split": "train"},
    }
    samples = data if data is not None else sets[family]
    return {
        "seed": 0,
        "device": "cpu",
        "output": {"name": "tiny", "dir": "weights", "runs": "runs"},
        "model": {"name": ARCHS[family].name, "args": deepcopy(ARCHS[family].args)},
        "teacher": f"{base}/{family}.pth",
        "data": {**samples, "patch_size": 12},
        "evaluation": {"small": dict(samples)},
        "measure": {"latency_runs": 1, "warmup_runs": 0},
        "prune": {
            "criterion": "magnitude",
            "calibration": {"patches": 2, "patch_size": 12},
            "min_units": {},
        },
        "train": {**SHORT, "lr": 1e-3, "betas": [0.9, 0.99], "schedule": "cosine"},
        "finetune": dict(SHORT),
        "distill": {"losses": {"feature": {"weight": 1.0, "schedule": "cosine"}}},
    }


def write_base(base: Path) -> Path:
    """Write the files into an empty folder and return it."""
    base.mkdir(parents=True, exist_ok=True)
    for family, arch in ARCHS.items():
        model = network(arch)
        save(base / f"{family}.pth", Artifact(model.state_dict(), arch, make_record("train", {})))
        text = yaml.safe_dump(settings(base, family), sort_keys=False)
        (base / f"{family}.yml").write_text(text)
    params = network(Arch("catanet", FOREIGN)).state_dict()
    torch.save({"params_ema": params}, base / "foreign.pth")
    write_images(base / "images")
    write_voc(base / "voc", 3)
    write_sounds(base / "sounds")
    return base


def network(arch: Arch) -> nn.Module:
    """A network whose weights are not those of an initialisation."""
    torch.manual_seed(0)
    model = build(arch.name, **arch.args)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def write_images(folder: Path, count: int = 3, side: int = 48) -> None:
    """PNG files of smooth noise."""
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.png"), image)


def write_sounds(folder: Path) -> None:
    """Three clips of a second, in the layout of TAU."""
    (folder / "audio").mkdir(parents=True)
    rows, names = ["filename\tscene_label\tidentifier\tsource_label"], ["filename"]
    for number, scene in enumerate(("airport", "bus", "tram")):
        wave = 0.3 * np.sin(np.arange(32000) * 0.05 * (number + 1))
        name = f"audio/{scene}-lyon-1-{number}-a.wav"
        soundfile.write(folder / name, wave, 32000)
        rows.append(f"{name}\t{scene}\tlyon-{number}\ta")
        names.append(name)
    (folder / "meta.csv").write_text("\n".join(rows) + "\n")
    (folder / "list.csv").write_text("\n".join(names) + "\n")
