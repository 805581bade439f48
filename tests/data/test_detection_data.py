"""Samples for detectors: letterbox, augmentation and toy shapes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from kdp.data import detection, mosaic, toy_shapes
from kdp.data.boxes import AnnotatedImage
from kdp.data.detection import BoxDataset, letterbox, unletterbox
from kdp.data.images import ImageArray
from kdp.data.mosaic import BoxedImage

RED = (220, 30, 30)
Box = tuple[float, float, float, float]


# Letterbox


@pytest.mark.parametrize(
    ("shape", "offset"),
    [((480, 640), (0, 40)), ((640, 480), (40, 0)), ((100, 101), (0, 1)), ((33, 20), (63, 0))],
)
def test_a_letterbox_keeps_the_aspect_and_centres(
    shape: tuple[int, int], offset: tuple[int, int]
) -> None:
    square, scale, place = letterbox(np.full((*shape, 3), 200, np.uint8), 320)
    assert (square.shape, scale, place) == ((320, 320, 3), 320 / max(shape), offset)
    is_image = (square == 200).all(2)
    assert (square[~is_image] == 114).all()
    assert abs(is_image.sum() - (scale**2) * shape[0] * shape[1]) <= 320


def test_boxes_come_back_from_a_letterbox() -> None:
    boxes = np.array([[0, 0, 50, 30], [10.5, 20, 333, 77]], np.float32)
    _, scale, (left, top) = letterbox(np.zeros((77, 333, 3), np.uint8), 160)
    there = boxes * np.float32(scale) + np.array((left, top, left, top), np.float32)
    back = unletterbox(there, scale, (left, top), 77, 333)
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    assert back.dtype == np.float32


def test_boxes_in_the_margin_are_cut_to_the_image() -> None:
    back = unletterbox(np.array([[-5, 0, 170, 160]], np.float32), 0.5, (0, 40), 160, 320)
    assert back.tolist() == [[0, 0, 320, 160]]
    assert unletterbox(np.empty((0, 4), np.float32), 0.5, (0, 40), 160, 320).shape == (0, 4)


ULTRALYTICS_LETTERBOX = """
import sys
import numpy as np
from ultralytics.data.augment import LetterBox
images = np.load(sys.argv[1])
boxed = {k: LetterBox((160, 160), auto=False, scaleup=True, center=True)(image=images[k])
         for k in images}
np.savez(sys.argv[2], **boxed)
"""


def test_letterbox_matches_ultralytics(tmp_path: Path) -> None:
    if find_spec("ultralytics") is None:
        pytest.skip("ultralytics is not installed")
    random = np.random.default_rng(0)
    shapes = [(480, 640), (37, 211), (211, 38), (160, 160), (161, 159), (1, 3000), (99, 100)]
    images = {f"{h}x{w}": random.integers(0, 256, (h, w, 3), np.uint8) for h, w in shapes}
    inputs, outputs = tmp_path / "images.npz", tmp_path / "boxed.npz"
    np.savez(inputs, **images)
    quiet = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_CONFIG_DIR": str(tmp_path)}
    # In a process of its own: its import changes OpenCV and torch for all others.
    command = [sys.executable, "-c", ULTRALYTICS_LETTERBOX, str(inputs), str(outputs)]
    subprocess.run(command, check=True, env={**os.environ, **quiet})
    with np.load(outputs) as boxed:
        for name, image in images.items():
            assert (letterbox(image, 160)[0] == boxed[name]).all(), name


# Samples


def squares(
    count: int = 6, objects: int = 2, shape: tuple[int, int] = (120, 160)
) -> list[AnnotatedImage]:
    """Dark images with red squares of 30 pixels that do not touch; the last has none."""

    def drawn(boxes: np.ndarray) -> ImageArray:
        image = np.full((*shape, 3), 20, np.uint8)
        for x0, y0, x1, y1 in boxes.astype(int):
            image[y0:y1, x0:x1] = RED
        return image

    def annotated(number: int) -> AnnotatedImage:
        there = objects if number < count - 1 else 0
        lefts = 10 + 50 * np.arange(there) + number
        boxes = np.array([[x, 12 * number, x + 30, 12 * number + 30] for x in lefts], np.float32)
        boxes = boxes.reshape(-1, 4)
        labels = np.full(there, number % 3, np.int64)
        return AnnotatedImage(f"squares-{number}", lambda: drawn(boxes), boxes, labels)

    return [annotated(number) for number in range(count)]


def corners(sample: dict[str, torch.Tensor]) -> np.ndarray:
    """(N, 4) pixels of the boxes of a sample."""
    rows = sample["boxes"][sample["boxes"][:, 0] >= 0, 1:].numpy() * sample["image"].shape[-1]
    return np.concatenate([rows[:, :2] - rows[:, 2:] / 2, rows[:, :2] + rows[:, 2:] / 2], axis=1)


def reddish(image: np.ndarray) -> np.ndarray:
    """(H, W) mask of the squares of an (H, W, 3) uint8 image, under any colour augmentation."""
    return image.astype(int)[..., 0] - image.astype(int)[..., 1] > 15


def assert_boxes_fit(image: np.ndarray, boxes: np.ndarray, slack: int = 2) -> None:
    """Every box is full of red, and around it, where there is image, is none."""
    red = reddish(image)
    for box in boxes:
        x0, y0, x1, y1 = np.rint(box).astype(int)
        assert red[y0 + slack : y1 - slack, x0 + slack : x1 - slack].all()
        around = red[max(0, y0 - 4) : y1 + 4, max(0, x0 - 4) : x1 + 4].copy()
        top, left = min(4, y0) - slack, min(4, x0) - slack
        around[
            max(0, top) : top + y1 - y0 + 2 * slack, max(0, left) : left + x1 - x0 + 2 * slack
        ] = 0
        assert not around.any()


def pixels(sample: dict[str, torch.Tensor]) -> np.ndarray:
    return (sample["image"].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)


def test_a_plain_sample_is_the_letterboxed_image() -> None:
    images = squares()
    data = BoxDataset(images, 80, seed=1, augment=False, length=6)
    indices = set()
    for number in range(6):
        sample = data[number]
        index = data._order(number)
        indices.add(index)
        assert sample["image"].dtype == sample["boxes"].dtype == torch.float32
        square, scale, (left, top) = letterbox(images[index].read(), 80)
        assert (pixels(sample) == square).all()
        back = unletterbox(corners(sample), scale, (left, top), 120, 160)
        np.testing.assert_allclose(back, images[index].boxes, atol=1e-3)
        kept = sample["boxes"][:, 0] >= 0
        assert sample["boxes"][kept, 0].tolist() == images[index].labels.tolist()
        assert (sample["boxes"][~kept] == torch.tensor([-1.0, 0, 0, 0, 0])).all()
    assert indices == set(range(6))


@pytest.mark.parametrize("augment", [False, True])
def test_all_samples_have_rows_for_four_full_images(augment: bool) -> None:
    data = BoxDataset(squares(objects=3), 64, 0, augment, 12)
    assert {tuple(data[number]["boxes"].shape) for number in range(12)} == {(12, 5)}
    assert torch.stack([data[number]["image"] for number in range(12)]).shape == (12, 3, 64, 64)


@pytest.mark.parametrize("augment", [False, True])
def test_background_images_still_have_padding_rows(augment: bool) -> None:
    sample = BoxDataset(squares(1), 64, 0, augment, 1)[0]
    assert sample["boxes"].shape == (4, 5)
    assert (sample["boxes"][:, 0] == -1).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_boxes_follow_the_augmentation_of_the_image(share: float) -> None:
    data = BoxDataset(squares(), 160, 3, True, 40, mosaic=share)
    count = 0
    for number in range(40):
        sample = data[number]
        boxes = corners(sample)
        assert (boxes > -1e-3).all()
        assert (boxes < 160 + 1e-3).all()
        assert_boxes_fit(pixels(sample), boxes)
        count += len(boxes)
    assert count > 40


def test_the_last_epochs_have_no_mosaics() -> None:
    def data(**how: float) -> BoxDataset:
        return BoxDataset(squares(), 64, 0, True, 18, **how)  # type: ignore[arg-type]

    always, never, closed = data(), data(mosaic=0.0), data(close_mosaic=2)
    assert all(same(closed[number], always[number]) for number in range(6))
    assert all(same(closed[number], never[number]) for number in range(6, 18))
    assert not any(same(always[number], never[number]) for number in range(18))


def test_every_visible_square_has_a_box() -> None:
    data = BoxDataset(squares(), 160, 4, True, 30)
    for number in range(30):
        sample = data[number]
        red = reddish(pixels(sample))
        for x0, y0, x1, y1 in corners(sample).round().astype(int):
            red[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2] = False
        # What is dropped: less than two pixels or a tenth of a square.
        assert red.sum() < 400


def test_a_flip_mirrors_boxes() -> None:
    square = squares()[1]
    scene = BoxedImage(square.read(), square.boxes, square.labels)
    flipped = mosaic.flipped(scene)
    expected = [[160 - x1, y0, 160 - x0, y1] for x0, y0, x1, y1 in square.boxes]
    assert flipped.boxes.tolist() == expected
    assert_boxes_fit(flipped.image, flipped.boxes, slack=0)
    assert (mosaic.flipped(flipped).image == scene.image).all()


def test_a_mosaic_shows_four_images_around_its_middle() -> None:
    tiles = [
        BoxedImage(
            np.full((30, 40, 3), 50 + number, np.uint8),
            np.array([[0, 0, 40, 30]], np.float32),
            np.array([number]),
        )
        for number in range(4)
    ]
    combined = mosaic.mosaic(tiles, 40, np.random.default_rng(0))
    assert combined.image.shape == (80, 80, 3)
    assert combined.labels.tolist() == [0, 1, 2, 3]
    for number, box in enumerate(np.clip(combined.boxes, 0, 80).astype(int)):
        x0, y0, x1, y1 = box
        assert (combined.image[y0:y1, x0:x1] == 50 + number).all()
        assert (combined.image == 50 + number).sum() == 3 * (x1 - x0) * (y1 - y0)


class Even:
    """In place of a random generator: the middle of every range."""

    def uniform(self, low: float, high: float, size: int | None = None) -> np.ndarray:
        return np.full(() if size is None else size, (low + high) / 2)


def test_images_move_around_their_middle() -> None:
    square = squares(shape=(160, 160))[1]
    scene = BoxedImage(square.read(), square.boxes, square.labels)
    still = mosaic.moved(scene, 160, Even())  # type: ignore[arg-type]
    assert (still.image == scene.image).all()
    assert still.boxes.tolist() == scene.boxes.tolist()
    middle = mosaic.moved(scene, 80, Even())  # type: ignore[arg-type]
    assert (middle.image == scene.image[40:120, 40:120]).all()


def test_boxes_are_clipped_to_the_mosaic() -> None:
    scene = BoxedImage(
        np.zeros((80, 80, 3), np.uint8), np.array([[-20, 30, 40, 90]], np.float32), np.array([0])
    )
    moved = mosaic.moved(scene, 160, Even())  # type: ignore[arg-type]
    assert moved.boxes.tolist() == [[40, 70, 80, 120]]


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ((0, 0, 20, 20), (0, 0, 20, 20), True),
        ((0, 0, 20, 20), (0, 0, 20, 3), True),
        ((0, 0, 20, 20), (0, 0, 20, 1.9), False),
        ((0, 0, 100, 100), (0, 0, 30, 30), False),
        ((0, 0, 100, 100), (0, 0, 35, 35), True),
        ((0, 0, 400, 3), (0, 0, 400, 3), False),
        ((0, 0, 20, 20), (0, 5, 0, 5), False),
    ],
)
def test_boxes_that_are_mostly_cut_off_are_dropped(before: Box, after: Box, kept: bool) -> None:
    assert mosaic._still_visible(np.array([before], float), np.array([after], float)).tolist() == [
        kept
    ]


def test_colours_change_and_boxes_stay() -> None:
    square = squares()[0]
    scene = BoxedImage(square.read(), square.boxes, square.labels)
    changed = mosaic.recoloured(scene, np.random.default_rng(0))
    assert changed.boxes is scene.boxes
    assert (changed.image != scene.image).any()
    assert_boxes_fit(changed.image, changed.boxes, slack=0)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("image", "boxes"))


@pytest.mark.parametrize("augment", [False, True])
def test_a_sample_depends_on_its_number_and_the_seed_alone(augment: bool) -> None:
    def data(seed: int = 5) -> BoxDataset:
        return BoxDataset(squares(), 64, seed, augment, 20, mosaic=0.5)

    forwards, backwards = data(), data()
    in_order = {number: forwards[number] for number in range(20)}
    reverse_order = {number: backwards[number] for number in reversed(range(20))}
    assert all(same(in_order[number], reverse_order[number]) for number in range(20))
    assert same(data()[13], in_order[13])
    assert not all(same(data(6)[number], in_order[number]) for number in range(20))


def test_a_full_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = BoxDataset(squares(), 64, 0, True, 12)
    samples = [cached[number] for number in range(12)]
    monkeypatch.setattr(detection, "CACHE_BYTES", 0)
    uncached = BoxDataset(squares(), 64, 0, True, 12)
    assert all(same(samples[number], uncached[number]) for number in range(12))
    assert len(cached._cache) == 6
    assert not uncached._cache


# Toy shapes


def test_toy_shapes_are_as_described() -> None:
    train, val = toy_shapes.toy_shapes(False), toy_shapes.toy_shapes(True)
    assert (len(train), len(val)) == (240, 60)
    assert len({image.name for image in (*train, *val)}) == 300
    counts = np.array([len(image.labels) for image in train])
    assert (counts.min(), counts.max()) == (1, 5)
    boxes = np.concatenate([image.boxes for image in train])
    assert boxes.min() >= 0
    assert boxes.max() <= toy_shapes.SIDE
    longest = (boxes[:, 2:] - boxes[:, :2]).max(1)
    assert longest.min() >= 19
    assert longest.max() <= 91
    assert np.bincount(np.concatenate([image.labels for image in val]), minlength=3).min() > 20


def test_toy_shapes_are_the_same_at_every_call() -> None:
    for first, second in zip(toy_shapes.toy_shapes(True), toy_shapes.toy_shapes(True), strict=True):
        assert (first.boxes == second.boxes).all()
    assert (first.read() == second.read()).all()
    assert first.read().shape == (160, 160, 3)


def test_boxes_of_toy_shapes_are_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    def black(random: np.random.Generator) -> ImageArray:
        return np.zeros((160, 160, 3), np.uint8)

    monkeypatch.setattr(toy_shapes, "_background", black)
    alone = [image for image in toy_shapes.toy_shapes(False) if len(image.labels) == 1]
    assert len(alone) > 20
    for image in alone:
        rows, columns = np.nonzero(image.read().any(2))
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert image.boxes[0].tolist() == drawn


def test_toy_shapes_overlap_little() -> None:
    for image in toy_shapes.toy_shapes(False):
        for number, box in enumerate(image.boxes):
            assert all(toy_shapes._overlap(box, other) <= 0.1 for other in image.boxes[:number])
