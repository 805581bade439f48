"""`kdp infer` on images: each becomes a PNG."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import nn

from kdp.data.images import ImageArray, png_bytes, read_rgb
from kdp.errors import Interrupted, KdpError
from kdp.log import log
from kdp.progress import no_bar, progress
from kdp.serialize import json_line
from kdp.stages.infer.images import find_images, targets
from kdp.stages.infer.request import Emit, InferRequest, InferResult
from kdp.stages.replacing import OTHER_OUTPUT, check_targets, log_replaced
from kdp.tasks.predictor import AdvisingPredictor, ImagePrediction, Predictor
from kdp.training.shutdown import Shutdown, StopRequested, stop_between_layers
from kdp.written import write_output

Advance = Callable[..., None]


def predict_images(
    model: nn.Module, predictor: Predictor, request: InferRequest, emit: Emit, shutdown: Shutdown
) -> InferResult:
    """Predict every image; one that cannot be read does not stop the others.

    Args:
        model: the network of the predictor, on its device.
        predictor: of the network's family.
        request: `images`, `output`, `headless` and `overwrite` are read.
        emit: receives a line of JSON for each image where `headless`.
        shutdown: is checked before every layer of the network.

    Raises:
        KdpError: no image is found, two would become one file, or a file is protected or cannot
            be written.
        Interrupted: stopped on request.
    """
    sources = find_images(request.images)
    plan = targets(sources, request.output, predictor.folder_suffix)
    check_targets(plan, request.overwrite, OTHER_OUTPUT)
    log_replaced(plan)
    result = InferResult([], [])
    # The bar of a terminal takes over standard output too, where the lines of JSON go.
    bar = nullcontext(no_bar) if request.headless else progress(predictor.action, len(plan))
    with bar as advance:
        for source, target in zip(sources, plan, strict=True):
            advance(0, note=source.name)
            try:
                image = _read(source, predictor.min_side)
            except KdpError as error:
                result.unreadable.append(str(error))
                advance(1)
                continue
            try:
                with _passes_counted(model, advance, predictor.passes(image), shutdown):
                    prediction, ms = timed(predictor, image)
            except StopRequested:
                count = f"{len(result.written)} of {len(plan)} images"
                raise Interrupted(f"stopped after {count}; those written are complete") from None
            write_output(target, png_bytes(prediction.image(caption(ms))))
            result.written.append(target)
            if request.headless:
                line: dict[str, Any] = {"file": str(source), "written": str(target)}
                line |= {**times_in_ms(prediction, ms), **prediction.plain()}
                emit(json_line(line))
            else:
                log.info(f"{source}: {in_words(prediction.plain())}")
    advise(predictor, "images")
    return result


def advise(predictor: Predictor, noun: str) -> None:
    """Pass on what a predictor says about the images that it has seen."""
    if isinstance(predictor, AdvisingPredictor) and (line := predictor.advice(noun)):
        log.info(line)


def in_words(result: Mapping[str, Any]) -> str:
    """A prediction as text, without coordinates: "objects: cat 0.9957, dog 0.8".

    Args:
        result: as `ImagePrediction.plain` gives it.
    """
    return "; ".join(f"{key}: {_words(value)}" for key, value in result.items())


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(_words(v) for key, v in value.items() if key != "box")
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return str(value)


def timed(predictor: Predictor, image: ImageArray) -> tuple[ImagePrediction, float]:
    """A prediction, and the milliseconds it took."""
    start = time.perf_counter()
    prediction = predictor(image)
    return prediction, 1000 * (time.perf_counter() - start)


def times_in_ms(prediction: ImagePrediction, ms: float) -> dict[str, Any]:
    """The time of a prediction and of its parts, for a line of JSON."""
    parts = {f"{part}_ms": round(value, 2) for part, value in prediction.part_ms.items()}
    return {"ms": round(ms, 2), **parts}


def caption(ms: float, rate: float | None = None) -> str:
    """Time and rate as they are drawn; the rate that the time alone allows where none is given."""
    return f"{ms:.1f} ms {1000 / ms if rate is None else rate:.1f} fps"


def _read(path: Path, min_side: int) -> ImageArray:
    image = read_rgb(path)
    height, width = image.shape[:2]
    if min(height, width) < min_side:
        raise KdpError(f"the image {path} is {width}x{height}; each side needs {min_side} pixels")
    return image


@contextmanager
def _passes_counted(
    model: nn.Module, advance: Advance, passes: int, shutdown: Shutdown
) -> Iterator[None]:
    """Move the bar by one image in all, a part with every pass of the network.

    A request to stop that comes after the last layer still writes the image.

    Raises:
        StopRequested: the work is to stop.
    """
    # Fractions add up to exactly one; floats would leave the bar short of its end.
    left = Fraction(1)

    def after_pass(*_: object) -> None:
        nonlocal left
        step = min(left, Fraction(1, passes))
        left -= step
        advance(step)

    if shutdown.stop_requested:
        raise StopRequested
    with stop_between_layers(model, lambda: shutdown.stop_requested):
        hook = model.register_forward_hook(after_pass)
        try:
            yield
        finally:
            hook.remove()
    if left:  # nothing to run the network on, as in an image where no region was detected
        advance(left)
