"""`kdp infer`: what a network is for, done to pictures, videos or what a camera sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdp.config import Config
from kdp.errors import KdpError
from kdp.models.loading import load_runnable
from kdp.stages.infer.images import Inference
from kdp.stages.infer.stream import Request, reject_options, watch
from kdp.stages.infer.super_resolve import super_resolve
from kdp.tasks import task_for
from kdp.tasks.classification import Classification
from kdp.tasks.detection import Detection
from kdp.tasks.super_resolution import SuperResolution


def infer(file: Path, request: Request, config: Config, emit: Callable[[str], None]) -> Inference:
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
        reject_options({"--x8": request.ensemble}, f"{file} holds {arch.name!r}, a classifier")
        return watch(model, task, request, emit)
    if isinstance(task, Detection):
        useless = {"--x8": request.ensemble, "--whole": request.whole}
        reject_options(useless, f"{file} holds {arch.name!r}, a detector")
        return watch(model, task, request, emit)
    if not isinstance(task, SuperResolution):
        raise KdpError(f"{file} holds {arch.name!r}: there is nothing to do with its output")
    for_faces = {
        "--camera": request.camera is not None,
        "--csi": request.csi,
        "--whole": request.whole,
    }
    for_faces |= {"--save": request.save is not None, "--headless": request.headless}
    reject_options(for_faces, f"{file} holds {arch.name!r}, which sees no objects")
    if not request.pictures:
        raise KdpError("no picture is given; name files, folders or quoted patterns")
    return super_resolve(model, task, request.pictures, request.folder, request.ensemble)
