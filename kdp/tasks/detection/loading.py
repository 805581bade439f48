"""Reading the images with boxes that the configuration names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdp.config import EmbeddedSamples, SamplesConfig
from kdp.data.boxes import AnnotatedImage
from kdp.data.content import without_content_of
from kdp.data.toy_shapes import CLASSES, toy_shapes
from kdp.data.voc import ALL, voc_folder
from kdp.data.yolo_yaml import yolo_yaml
from kdp.errors import KdpError
from kdp.log import log_once
from kdp.tasks.detection.section import BoxSamples, BoxSource
from kdp.tasks.fixed_size import check_embedded


def load_boxed(
    section: SamplesConfig,
    classes: Sequence[str],
    validation: bool,
    evaluated: Iterable[AnnotatedImage] = (),
) -> list[AnnotatedImage]:
    """The images that a section of the configuration describes.

    Args:
        section: of the configuration.
        classes: of the network.
        validation: the default split is `val`, not `train`.
        evaluated: images to leave out of the split `all`, by content.

    Raises:
        KdpError: the kind is of another task or has other classes, or data are missing.
    """
    if isinstance(section, EmbeddedSamples):
        check_embedded(classes, CLASSES, "'voc' or 'yolo'")
        return toy_shapes(validation)
    if isinstance(section, BoxSamples):
        sources = section.sources("val" if validation else "train")
        return [image for source in sources for image in _read(source, classes, evaluated)]
    raise KdpError(
        "images with objects are of kind 'voc' (with `folder`), 'yolo' (with `folder`, the "
        f"YAML file) or 'embedded', not {section.kind!r}"
    )


def _read(
    source: BoxSource, classes: Sequence[str], evaluated: Iterable[AnnotatedImage]
) -> list[AnnotatedImage]:
    read = voc_folder if source.kind == "voc" else yolo_yaml
    images = read(source.folder, source.split, classes)
    if source.kind != "voc" or source.split != ALL:
        return images
    kept = without_content_of(images, evaluated)
    if len(kept) < len(images):
        log_once(
            f"{source.folder}: {len(images) - len(kept)} of {len(images)} images are evaluated on, "
            "left out"
        )
    if not kept:
        raise KdpError(
            f"{source.folder}: all images are in an evaluation set, none is left to train"
        )
    return kept
