"""What a family does for `kdp infer`: `kdp.stages.infer` finds files and frames, and asks this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from kdp.data.images import ImageArray

ENSEMBLE, WHOLE = "--x8", "--whole"
CAMERA, CSI, SAVE, HEADLESS = "--camera", "--csi", "--output VIDEO", "--headless"
STREAM = frozenset({CAMERA, CSI, SAVE, HEADLESS})
"""The options of a predictor that is fast enough for video."""
FORMAT = "--format"
TABLE = frozenset({FORMAT, HEADLESS})
"""Those of a predictor whose results are rows of a table."""


@dataclass(frozen=True)
class InferOptions:
    """Options that change what a predictor computes.

    Attributes:
        ensemble: average over the eight flips and rotations of an image.
        whole: classify the whole image instead of the faces in it.
    """

    ensemble: bool = False
    whole: bool = False


class ImagePrediction(Protocol):
    """The result for one image or frame."""

    @property
    def part_ms(self) -> Mapping[str, float]:
        """Milliseconds that each part of the work took; empty where it has no parts."""

    def image(self, caption: str) -> ImageArray:
        """The (H, W, 3) uint8 RGB image to write or show.

        Args:
            caption: time and rate, for predictors that draw on the image.
        """

    def plain(self) -> dict[str, Any]:
        """The result in plain values, for one line of JSON; no key may be `file`, `frame`,
        `written` or `ms`, or end in `_ms`."""


class AnyPredictor(Protocol):
    """What every predictor says of itself."""

    @property
    def options(self) -> frozenset[str]:
        """The options of `kdp infer` that apply, out of those that this module names."""

    @property
    def kind(self) -> str:
        """What the network is, in words: "a classifier"."""

    @property
    def action(self) -> str:
        """What happens to an image or a file, for the progress bar: "label faces"."""


class Predictor(AnyPredictor, Protocol):
    """Runs a network on one image after another."""

    @property
    def folder_suffix(self) -> str:
        """Images of `photos` are written to `photos_<suffix>` where no folder is given."""

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side of an image must have."""

    def passes(self, image: ImageArray) -> int:
        """How often the network runs for an image, at most; for the progress bar."""

    def __call__(self, image: ImageArray) -> ImagePrediction:
        """Predict an (H, W, 3) uint8 RGB image."""


@runtime_checkable
class AdvisingPredictor(Protocol):
    """A `Predictor` that may know, after the last image, how it is used better."""

    def advice(self, noun: str) -> str:
        """A line for the user; "" for none.

        Args:
            noun: what the images were: "images" or "frames".
        """


class FilePrediction(Protocol):
    """The result for one file."""

    @property
    def part_ms(self) -> Mapping[str, float]:
        """Milliseconds that each part of the work took; empty where it has no parts."""

    def plain(self) -> dict[str, Any]:
        """The result in plain values, a row of the table; see `ImagePrediction.plain`."""


@dataclass(frozen=True)
class TableFormat:
    """How the results of all files are written.

    Attributes:
        write: ((file, its `FilePrediction`), ...) -> the text.
        unique_names: whether the format has the names of files without their folders.
    """

    write: Callable[[Sequence[tuple[Path, Any]]], str]
    unique_names: bool = False


@runtime_checkable
class TablePredictor(AnyPredictor, Protocol):
    """Runs a network on one file after another that is no image; each becomes a row of a table."""

    @property
    def noun(self) -> str:
        """What a file is: "sound"."""

    @property
    def suffixes(self) -> frozenset[str]:
        """Of the files that are taken from folders and patterns, in lower case: ".wav"."""

    @property
    def formats(self) -> Mapping[str, TableFormat]:
        """Formats of the table that only this family has, by the name that `--format` takes."""

    def read(self, path: Path) -> Any:
        """What the network is run on.

        Raises:
            KdpError: there is nothing in this file to run it on.
        """

    def passes(self, sample: Any) -> int:
        """How often the network runs for what `read` returned, at most; for the progress bar."""

    def __call__(self, sample: Any) -> FilePrediction:
        """Predict what `read` returned."""
