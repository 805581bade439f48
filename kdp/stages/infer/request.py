"""What `kdp infer` is asked to do, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdp.errors import KdpError
from kdp.tasks.predictor import (
    CAMERA,
    CSI,
    ENSEMBLE,
    FORMAT,
    HEADLESS,
    SAVE,
    WHOLE,
    InferOptions,
    Predictor,
    TablePredictor,
)

Emit = Callable[[str], None]
"""Takes one line of JSON."""


@dataclass(frozen=True)
class InferRequest:
    """The options of `kdp infer`.

    Attributes:
        inputs: files, folders and glob patterns, see `find_files`; or one video file.
        output: folder for the images (default: see `targets`), or file of the table.
        ensemble: average over the eight flips and rotations of an image.
        camera: number of a camera to read.
        csi: read the CSI camera of a Jetson.
        whole: classify whole images instead of the regions detected in them.
        save: the annotated video to write.
        headless: no window; one line of JSON for each frame or image.
        overwrite: replace files that kdp did not write, too.
        format: of the table, see `choose_format`.
    """

    inputs: tuple[str, ...] = ()
    output: Path | None = None
    ensemble: bool = False
    camera: int | None = None
    csi: bool = False
    whole: bool = False
    save: Path | None = None
    headless: bool = False
    overwrite: bool = False
    format: str | None = None

    @property
    def options(self) -> InferOptions:
        """Those that a predictor reads."""
        return InferOptions(ensemble=self.ensemble, whole=self.whole)

    @property
    def given(self) -> dict[str, bool]:
        """Whether each of the options that only some families support is given."""
        return {
            ENSEMBLE: self.ensemble,
            CAMERA: self.camera is not None,
            CSI: self.csi,
            WHOLE: self.whole,
            SAVE: self.save is not None,
            HEADLESS: self.headless,
            FORMAT: self.format is not None,
        }


@dataclass(frozen=True)
class InferResult:
    """What `kdp infer` wrote.

    Attributes:
        written: the files, in the order of the images.
        unreadable: for each file or stream that failed, why.
    """

    written: list[Path]
    unreadable: list[str]


def check_supported(
    request: InferRequest, predictor: Predictor | TablePredictor, network: str
) -> None:
    """Refuse options that a family does not support.

    Args:
        request: the options.
        predictor: of the family.
        network: what was loaded, for the message.

    Raises:
        KdpError: one of them is given.
    """
    for option, is_given in request.given.items():
        if is_given and option not in predictor.options:
            raise KdpError(f"{option} does not apply: {network}, {predictor.kind}")
