"""`kdp infer`: run a network on images, a video, a camera or other files."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from kdp.config import Config
from kdp.devices import pick_device
from kdp.errors import KdpError
from kdp.finite import outputs_finite
from kdp.models.loading import load_runnable
from kdp.stages.infer.predict_images import predict_images
from kdp.stages.infer.predict_table import predict_table
from kdp.stages.infer.request import Emit, InferRequest, InferResult, check_supported
from kdp.stages.infer.stream import open_stream, predict_frames
from kdp.tasks import family_of
from kdp.tasks.predictor import CAMERA, Predictor, TablePredictor
from kdp.training.shutdown import graceful_shutdown
from kdp.types import Arch


def infer(file: Path, request: InferRequest, config: Config, emit: Emit) -> InferResult:
    """Run the network of a file on images, a stream or other files, as its family does.

    Args:
        file: an artifact, a foreign checkpoint, or an ONNX file of `kdp export`.
        request: the options.
        config: `device` and the sections of the family are read.
        emit: receives the lines of JSON, and tables.

    Raises:
        KdpError: the family has no `infer`, an option does not apply, the input is missing or
            ambiguous, there is no display for a stream that is not `headless`, an output is not
            finite, or a file cannot be written.
        Interrupted: stopped on request; the files that were written are complete.
    """
    model, arch, _ = load_runnable(file)
    network = f"{file} holds {arch.name!r}"
    predictor = _predictor(model, arch, config, request, network)
    check_supported(request, predictor, network)
    if CAMERA not in predictor.options and not request.inputs:
        noun = predictor.noun if isinstance(predictor, TablePredictor) else "image"
        raise KdpError(f"no {noun} is given; name files, folders or quoted patterns")
    # A predictor without `--camera` takes files alone, whatever their names.
    stream = open_stream(request) if CAMERA in predictor.options else None
    model.to(pick_device(config.device))
    with graceful_shutdown() as shutdown, outputs_finite(model, str(file)):
        if isinstance(predictor, TablePredictor):
            return predict_table(model, predictor, request, emit, shutdown)
        if stream is None:
            return predict_images(model, predictor, request, emit, shutdown)
        return predict_frames(stream, predictor, request, emit, shutdown)


def _predictor(
    model: nn.Module, arch: Arch, config: Config, request: InferRequest, network: str
) -> Predictor | TablePredictor:
    family = family_of(arch)
    if family.predictor is None:
        raise KdpError(f"{network}: `infer` does not support this network")
    return family.predictor(model, arch, config, request.options)
