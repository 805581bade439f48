"""`kdp infer` on images: each becomes a PNG."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from kdp.data.images import SUFFIXES, ImageArray, png_bytes, read_rgb
from kdp.errors import Interrupted, KdpError
from kdp.log import log
from kdp.progress import no_bar, progress
from kdp.serialize import json_line
from kdp.stages.infer.images import targets
from kdp.stages.infer.predict import Predicted, Run, in_words, times_in_ms
from kdp.stages.infer.request import Emit, InferRequest, InferResult
from kdp.stages.infer.sources import find_files
from kdp.stages.replacing import OTHER_OUTPUT, check_targets, log_replaced
from kdp.tasks.predictor import AdvisingPredictor, Predictor
from kdp.training.shutdown import Shutdown, StopRequested
from kdp.written import write_output


def predict_images(
    model: nn.Module, predictor: Predictor, request: InferRequest, emit: Emit, shutdown: Shutdown
) -> InferResult:
    """Predict every image; one that cannot be read does not stop the others.

    Args:
        model: the network of the predictor, on its device.
        predictor: of the network's family.
        request: `inputs`, `output`, `headless` and `overwrite` are read.
        emit: receives a line of JSON for each image where `headless`.
        shutdown: is checked before every layer of the network.

    Raises:
        KdpError: no image is found, two would become one file, or a file is protected or cannot
            be written.
        Interrupted: stopped on request.
    """
    sources = find_files(request.inputs, SUFFIXES, "image")
    plan = targets(sources, request.output, predictor.folder_suffix)
    check_targets(plan, request.overwrite, OTHER_OUTPUT)
    log_replaced(plan)
    target_of = dict(zip(sources, plan, strict=True))
    result = InferResult([], [])
    run = Run(model, predictor, predictor.passes, shutdown)

    def read(path: Path) -> ImageArray:
        return _read(path, predictor.min_side)

    # The bar of a terminal takes over standard output too, where the lines of JSON go.
    bar = nullcontext(no_bar) if request.headless else progress(predictor.action, len(plan))
    try:
        with bar as advance:
            for done in run.over(sources, read, result.unreadable, advance):
                target = target_of[done.source]
                write_output(target, png_bytes(done.prediction.image(caption(done.ms))))
                result.written.append(target)
                _report(done, target, emit if request.headless else None)
    except StopRequested:
        count = f"{len(result.written)} of {len(plan)} images"
        raise Interrupted(f"stopped after {count}; those written are complete") from None
    advise(predictor, "images")
    return result


def _report(done: Predicted, target: Path, emit: Emit | None) -> None:
    """A line of JSON, or one of the log where there is nobody to emit to."""
    if emit is None:
        log.info(f"{done.source}: {in_words(done.prediction.plain())}")
        return
    line: dict[str, Any] = {"file": str(done.source), "written": str(target)}
    emit(json_line(line | times_in_ms(done.prediction, done.ms) | done.prediction.plain()))


def advise(predictor: Predictor, noun: str) -> None:
    """Pass on what a predictor says about the images that it has seen."""
    if isinstance(predictor, AdvisingPredictor) and (line := predictor.advice(noun)):
        log.info(line)


def caption(ms: float, rate: float | None = None) -> str:
    """Time and rate as they are drawn; the rate that the time alone allows where none is given."""
    return f"{ms:.1f} ms {1000 / ms if rate is None else rate:.1f} fps"


def _read(path: Path, min_side: int) -> ImageArray:
    image = read_rgb(path)
    height, width = image.shape[:2]
    if min(height, width) < min_side:
        raise KdpError(f"the image {path} is {width}x{height}; each side needs {min_side} pixels")
    return image
