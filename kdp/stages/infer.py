"""`kdp infer`: what a network is for, done to pictures, videos or what a camera sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdp.config import Config
from kdp.errors import KdpError
from kdp.models.loading import load_runnable
from kdp.stages.pictures import Inference
from kdp.stages.super_resolve import super_resolve
from kdp.stages.watch import Request, refuse, watch
from kdp.tasks import task_for
from kdp.tasks.classification import Classification
from kdp.tasks.detection import Detection
from kdp.tasks.super_resolution import SuperResolution


def infer(file: Path, asked: Request, config: Config, tell: Callable[[str], None]) -> Inference:
    """Do with the network of a file what it is for: super-resolve pictures, or label
    faces or objects.

    Args:
        file: an artifact, a foreign checkpoint, or an ONNX file of `kdp export`.
        asked: what to do, to which pictures.
        config: `tiles` and `device` are read.
        tell: gets the lines of JSON.

    Raises:
        KdpError: see `super_resolve` and `watch`; or this network has no use for an option.
        Interrupted: a video or camera was stopped on request; what was written is complete.
    """
    model, arch, _ = load_runnable(file)
    task = task_for(arch, config)
    if isinstance(task, Classification):
        refuse({"--x8": asked.ensemble}, f"{file} holds {arch['name']!r}, a classifier")
        return watch(model, task, asked, tell)
    if isinstance(task, Detection):
        useless = {"--x8": asked.ensemble, "--whole": asked.whole}
        refuse(useless, f"{file} holds {arch['name']!r}, a detector")
        return watch(model, task, asked, tell)
    if not isinstance(task, SuperResolution):
        raise KdpError(f"{file} holds {arch['name']!r}: there is nothing to do with its output")
    for_faces = {"--camera": asked.camera is not None, "--csi": asked.csi, "--whole": asked.whole}
    for_faces |= {"--save": asked.save is not None, "--headless": asked.headless}
    refuse(for_faces, f"{file} holds {arch['name']!r}, which sees no objects")
    if not asked.pictures:
        raise KdpError("no picture is given; name files, folders or quoted patterns")
    return super_resolve(model, task, asked.pictures, asked.folder, asked.ensemble)
