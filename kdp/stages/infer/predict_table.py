"""`kdp infer` on files that are no images: each becomes a row of a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from kdp.errors import Interrupted, KdpError
from kdp.files import real_path
from kdp.log import log
from kdp.progress import no_bar, progress
from kdp.serialize import json_line
from kdp.stages.infer.predict import Predicted, Run, in_words, times_in_ms
from kdp.stages.infer.prediction_tables import choose_format, show
from kdp.stages.infer.request import Emit, InferRequest, InferResult
from kdp.stages.infer.sources import find_files, source_folders
from kdp.stages.replacing import OTHER_OUTPUT, check_targets, log_replaced
from kdp.tasks.predictor import TableFormat, TablePredictor
from kdp.training.shutdown import Shutdown, StopRequested
from kdp.written import write_output


def predict_table(
    model: nn.Module,
    predictor: TablePredictor,
    request: InferRequest,
    emit: Emit,
    shutdown: Shutdown,
) -> InferResult:
    """Predict every file; one that cannot be read does not stop the others.

    Args:
        model: the network of the predictor, on its device.
        predictor: of the network's family.
        request: `inputs`, `output`, `format`, `headless` and `overwrite` are read.
        emit: receives the table where it goes into no file, or a line of JSON for each file where
            `headless`.
        shutdown: is checked before every layer of the network.

    Raises:
        KdpError: no file is found, the format is unknown, or the table's file is protected or
            cannot be written.
        Interrupted: stopped on request.
    """
    table = choose_format(request, predictor.formats)
    sources = find_files(request.inputs, predictor.suffixes, predictor.noun)
    _check_output(sources, request, table, predictor.noun)
    result = InferResult([], [])
    rows: list[tuple[Path, Any]] = []
    run = Run(model, predictor, predictor.passes, shutdown)
    # The bar of a terminal takes over standard output too, where the lines of JSON go.
    bar = nullcontext(no_bar) if request.headless else progress(predictor.action, len(sources))
    try:
        with bar as advance:
            for done in run.over(sources, predictor.read, result.unreadable, advance):
                rows.append((done.source, done.prediction))
                _report(done, request, emit)
    except StopRequested:
        count = f"{len(rows)} of {len(sources)} {predictor.noun}s"
        raise Interrupted(f"stopped after {count}; no table was written") from None
    if rows:
        result.written.extend(_deliver(rows, request, table, emit))
    return result


def _check_output(
    sources: Sequence[Path], request: InferRequest, table: TableFormat | None, noun: str
) -> None:
    """Make sure, before the first file, that the table can be written.

    Raises:
        KdpError: two files would be the same in it, it would lie among them, or it would replace a
            file that is protected.
    """
    if table and table.unique_names:
        source_of: dict[str, Path] = {}
        for source in sources:
            other = source_of.setdefault(source.name, source)
            if other is not source:
                raise KdpError(
                    f"{other} and {source} have the same name, and --format {request.format} has "
                    "no folders; rename one"
                )
    if request.output is None:
        return
    if real_path(request.output.parent) in source_folders(sources):
        raise KdpError(
            f"{request.output} would lie among the {noun}s; choose another folder (--output)"
        )
    check_targets([request.output], request.overwrite, OTHER_OUTPUT)
    log_replaced([request.output])


def _report(done: Predicted, request: InferRequest, emit: Emit) -> None:
    """A line of JSON, or one of the log; the printed table says the same at the end."""
    plain = done.prediction.plain()
    if request.headless:
        times = times_in_ms(done.prediction, done.ms)
        emit(json_line({"file": str(done.source), **times, **plain}))
    elif request.output:
        log.info(f"{done.source}: {in_words(plain)}")


def _deliver(
    rows: Sequence[tuple[Path, Any]], request: InferRequest, table: TableFormat | None, emit: Emit
) -> list[Path]:
    """Write or print the table; the file that was written, if any."""
    if request.output and table:
        # A name may hold bytes that are no text.
        write_output(request.output, os.fsencode(table.write(rows)))
        return [request.output]
    if table:
        emit(table.write(rows).removesuffix("\n"))
    elif not request.headless:
        show(rows)
    return []
