"""`kdp infer` on images, through the command line; and the self-ensemble."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from kdp.artifacts import Artifact, make_record, save
from kdp.cli import app, main
from kdp.data.images import png_bytes, read_rgb
from kdp.data.patches import to_tensor
from kdp.models import build
from kdp.models.catanet import CATANet
from kdp.models.catanet_tab import TAB
from kdp.models.loading import load_network
from kdp.stages.defaults import config_or_defaults
from kdp.stages.infer import predict_images as stage
from kdp.stages.infer.infer import infer
from kdp.stages.infer.request import InferRequest
from kdp.tasks import task_for
from kdp.tasks.predictor import InferOptions
from kdp.tasks.super_resolution.ensemble import self_ensemble
from kdp.tasks.super_resolution.predictor import Upscaler
from kdp.tasks.super_resolution.section import TileConfig
from kdp.tasks.super_resolution.tiles import upscale_image
from kdp.types import Arch
from tests.conftest import TINY
from tests.runs import complaints, run_kdp


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _artifact(tmp_path_factory.mktemp("networks"), 2)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results go under the current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images, a note, and a folder within."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b.png", "deeper/c.png")):
        _image(folder / name, (18 + number, 24))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], photos: Path
) -> Callable[..., str]:
    """Run `kdp infer` as the program does; it must end with the code and the line returned."""

    def run(*arguments: str, code: int = 2) -> str:
        monkeypatch.setattr(sys, "argv", ["kdp", "infer", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capfd.readouterr()
        assert (end.value.code, printed.out) == (code, "")
        (line,) = complaints(printed.err)
        return line

    return run


def _artifact(folder: Path, scale: int) -> Path:
    torch.manual_seed(1)
    args = {**TINY, "upscale": scale}
    path = folder / f"x{scale}.pth"
    params = build("catanet", **args).state_dict()
    save(path, Artifact(params, Arch("catanet", args), make_record("train", {})))
    return path


def _image(path: Path, size: tuple[int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(size).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.write_bytes(png_bytes(pixels))
    return path


def _kdp(*arguments: str | Path) -> Any:
    """`kdp infer` within this process, on a CPU."""
    return CliRunner().invoke(app, ["infer", *map(str, arguments), "--device", "cpu"])


def _plain(network: Path, image: Path, *, ensemble: bool = False) -> np.ndarray:
    """The upscaled image by a plain forward pass."""
    model = load_network(network)[0]
    lr = to_tensor(read_rgb(image))[None]
    with torch.no_grad():
        output = _by_hand(model, lr) if ensemble else model(lr).clamp(0, 1)
    return (output[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _by_hand(model: nn.Module, lr: Tensor) -> Tensor:
    """The mean over the eight transforms, as in the literature: transpose, flip, flip."""
    outputs = []
    for number in range(8):
        swap, dims = number % 2, [d for d, bit in ((2, 2), (3, 4)) if number & bit]
        oriented = (lr.transpose(2, 3) if swap else lr).flip(dims)
        output = model(oriented).clamp(0, 1).flip(dims)
        outputs.append(output.transpose(2, 3) if swap else output)
    return torch.stack(outputs).mean(dim=0)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [(5, 9), (9, 5), (6, 6)])
def test_x8_equals_one_pass_of_an_equivariant_network(mode: str, size: tuple[int, int]) -> None:
    def upscale(x: Tensor) -> Tensor:
        return F.interpolate(x[None], scale_factor=3, mode=mode)[0]

    image = torch.rand(3, *size)
    torch.testing.assert_close(self_ensemble(upscale, image), upscale(image))


def test_x8_runs_eight_different_images() -> None:
    inputs: list[Tensor] = []

    def upscale(x: Tensor) -> Tensor:
        inputs.append(x)
        return x

    self_ensemble(upscale, torch.rand(3, 4, 4))
    assert len({tuple(x.flatten().tolist()) for x in inputs}) == 8


def test_x8_is_the_mean_over_the_eight(network: Path) -> None:
    model, image = load_network(network)[0], torch.rand(3, 12, 17)
    with torch.no_grad():
        expected = _by_hand(model, image[None])[0]
        output = self_ensemble(lambda x: model(x[None])[0].clamp(0, 1), image)
        assert (output - model(image[None])[0].clamp(0, 1)).abs().max() > 1e-4
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


def test_results_of_a_folder_go_under_the_current_folder(
    network: Path, photos: Path, tmp_path: Path
) -> None:
    done = run_kdp("infer", str(network), str(photos), "--device", "cpu", cwd=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    written = [Path("photos_x2") / name for name in ("a.png", "b.png")]
    assert done.stdout.splitlines() == [str(path) for path in written]
    assert sorted(written[0].parent.iterdir()) == written
    assert sorted(path.name for path in photos.parent.iterdir()) == ["here", "photos"]
    for path in written:
        assert np.array_equal(read_rgb(path), _plain(network, photos / path.name))
    assert "2 of 2" in done.stderr


@pytest.mark.parametrize("scale", [3, 4])
def test_other_scales_are_supported(tmp_path: Path, photos: Path, scale: int) -> None:
    result = _kdp(_artifact(tmp_path, scale), photos / "a.png")
    assert result.exit_code == 0, result.output
    output = read_rgb(Path(f"photos_x{scale}/a.png"))
    assert output.shape == (18 * scale, 24 * scale, 3)


def test_a_pattern_matches_images_only(network: Path, photos: Path) -> None:
    target = photos.parent / "elsewhere" / "large"
    result = _kdp(network, photos / "**" / "*", "--to", target)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_file_name_may_look_like_a_pattern(network: Path, photos: Path) -> None:
    odd = _image(photos / "a[1]*.png", (10, 12))
    assert _kdp(network, odd).exit_code == 0
    assert read_rgb(Path("photos_x2") / odd.name).shape == (20, 24, 3)


def test_an_image_given_twice_is_computed_once(network: Path, photos: Path) -> None:
    result = _kdp(network, photos, photos / "a.png", photos / "*.png")
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path("photos_x2").iterdir()].count("a.png") == 1
    assert result.stdout.count("a.png") == 1


@pytest.mark.parametrize("given", ["a.png", ".", "../photos/a.png", "./deeper/../a.png"])
def test_the_default_output_folder_is_named_after_the_input(
    network: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(photos)
    result = _kdp(network, given)
    assert result.exit_code == 0, result.output
    assert (photos / "photos_x2" / "a.png").is_file()


def test_x8_reaches_the_file(network: Path, photos: Path) -> None:
    assert _kdp(network, photos / "a.png", "--x8").exit_code == 0
    output = read_rgb(Path("photos_x2/a.png")).astype(int)
    expected = _plain(network, photos / "a.png", ensemble=True).astype(int)
    # Sums in another order may round the other way.
    assert abs(output - expected).max() <= 1
    assert (output != expected).mean() < 0.001
    assert not np.array_equal(output, _plain(network, photos / "a.png"))


def test_tiles_follow_the_settings(network: Path, photos: Path) -> None:
    image = _image(photos / "wide.png", (30, 90))
    chosen = ["tiles.size=32", "tiles.overlap=8"]
    more = [part for pair in chosen for part in ("--set", pair)]
    assert _kdp(network, image, *more).exit_code == 0
    model, arch, _ = load_network(network)
    task = task_for(arch, config_or_defaults(None, [*chosen, "device=cpu"]))
    output = read_rgb(Path("photos_x2/wide.png"))
    assert np.array_equal(output, task.upscale(model, read_rgb(image)))  # type: ignore[attr-defined]
    assert not np.array_equal(output, _plain(network, image))


@pytest.mark.parametrize(("ensemble", "passes"), [(False, 3), (True, 24)])
def test_the_progress_bar_counts_every_pass(
    network: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, ensemble: bool, passes: int
) -> None:
    steps: list[Any] = []

    class Bar:
        def __enter__(self) -> Callable[..., None]:
            return lambda count=1, note=None: steps.append(count)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(stage, "progress", lambda *_: Bar())
    config = config_or_defaults(None, ["tiles.size=32", "tiles.overlap=8", "device=cpu"])
    image = _image(photos / "wide.png", (30, 80))
    infer(network, InferRequest((str(image),), ensemble=ensemble), config, print)
    assert [step for step in steps if step] == [Fraction(1, passes)] * passes


def test_a_corrupt_image_does_not_stop_the_others(network: Path, photos: Path) -> None:
    whole = (photos / "a.png").read_bytes()
    (photos / "aa.png").write_bytes(whole[: len(whole) // 2])
    _image(photos / "ab.png", (1, 20))
    done = run_kdp("infer", str(network), str(photos), "--device", "cpu", cwd=Path.cwd())
    assert done.returncode == 2
    (line,) = complaints(done.stderr)
    assert f"the image {photos / 'aa.png'}: its end is missing" in line
    assert f"the image {photos / 'ab.png'} is 20x1" in line
    written = sorted(Path("photos_x2").iterdir())
    assert [path.name for path in written] == ["a.png", "b.png"]
    assert done.stdout.splitlines() == [str(path) for path in written]


@pytest.mark.parametrize(
    ("images", "more", "message"),
    [
        (["gone.png"], (), "there is no image and no folder {}/gone.png"),
        (["empty"], (), "no images in {}/empty"),
        (["*.txt"], (), "no image matches {}/*.txt"),
        (["a.png", "a.jpg"], (), "{0}/a.png and {0}/a.jpg would both become"),
        (["a.png", "deeper/a.png"], ("--to", "large"), "{0}/a.png and {0}/deeper/a.png would both"),
        (["a.jpg"], ("--to", "{}"), "{}/a.png would lie among the images"),
        (["a.png", "b.png"], ("-o", "both.png"), "both.png names an image, and there are 2"),
        (["a.png"], ("-o", "small.jpg"), "images are written as .png"),
        (["a.png"], ("-o", "{}/a.png"), "{}/a.png is the image itself"),
        (["a.png"], ("--set", "tiles.sise=3"), "did you mean"),
        (["a.png"], ("--device", "abacus"), "device 'abacus'"),
    ],
)
def test_bad_input_is_a_one_line_error_and_writes_nothing(
    refused: Callable[..., str],
    network: Path,
    photos: Path,
    images: list[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    (photos / "empty").mkdir()
    for name in ("a.jpg", "deeper/a.png"):
        (photos / name).write_bytes((photos / "a.png").read_bytes())
    before = {path: path.stat().st_mtime_ns for path in photos.parent.rglob("*")}
    given = [str(photos / name) for name in images]
    line = refused(str(network), *given, *(part.format(photos) for part in more))
    assert message.format(photos) in line
    assert {path: path.stat().st_mtime_ns for path in photos.parent.rglob("*")} == before


def test_a_file_without_a_network_is_a_one_line_error(
    refused: Callable[..., str], photos: Path
) -> None:
    masks = photos.parent / "masks.pth"
    save(masks, Artifact({}, None, make_record("prune", {}), {"masks": {}}))
    assert "holds no network" in refused(str(masks), str(photos))
    assert "gone.pth does not exist" in refused(str(photos / "gone.pth"), str(photos))


def test_ctrl_c_within_a_pass_ends_with_one_line_and_whole_files(
    network: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    _image(photos / "c.png", (20, 90))
    passes: list[Tensor] = []
    forward = CATANet.forward

    def interrupted(self: CATANet, x: Tensor) -> Tensor:
        passes.append(x)
        if len(passes) == 4:  # the second tile of the third image
            signal.raise_signal(signal.SIGINT)
        return forward(self, x)

    def attention(self: TAB, *inputs: Any) -> Any:
        assert len(passes) != 4, "a layer runs after the request to stop"
        return block(self, *inputs)

    block = TAB.forward
    monkeypatch.setattr(TAB, "forward", attention)
    monkeypatch.setattr(CATANet, "forward", interrupted)
    tiles = ("--set", "tiles.size=32", "--set", "tiles.overlap=8", "--device", "cpu")
    line = refused(str(network), str(photos), *tiles, code=130)
    assert line == "kdp: stopped after 2 of 3 images; those written are complete"
    assert len(passes) == 4
    written = sorted(Path("photos_x2").iterdir())
    assert [path.name for path in written] == ["a.png", "b.png"]
    for path in written:
        assert np.array_equal(read_rgb(path), _plain(network, photos / path.name))


def test_a_link_to_an_image_cannot_lose_it(network: Path, photos: Path) -> None:
    link = photos.parent / "links" / "a.png"
    link.parent.mkdir()
    link.symlink_to(photos / "a.png")
    error = _kdp(network, link, "--to", photos).exception
    assert "would lie among the images" in str(error)


def test_a_file_that_git_tracks_is_kept_without_overwrite(
    network: Path, photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "here" / "photos_x2" / "a.png"
    assert _kdp(network, photos / "a.png").exit_code == 0
    assert _kdp(network, photos / "a.png").exit_code == 0
    target.write_bytes(b"tracked")
    for command in (["init", "-q"], ["add", "photos_x2/a.png"]):
        subprocess.run(["git", *command], cwd=tmp_path / "here", check=True)
    error = _kdp(network, photos / "a.png").exception
    assert "photos_x2/a.png would be replaced, and git tracks it" in str(error)
    assert target.read_bytes() == b"tracked"
    assert _kdp(network, photos / "a.png", "--overwrite").exit_code == 0
    assert read_rgb(target).shape == (36, 48, 3)


def test_passes_are_counted_as_tiles_are_made(network: Path) -> None:
    config = config_or_defaults(None, ["tiles.size=16", "tiles.overlap=4", "device=cpu"])
    arch = load_network(network)[1]
    for size in ((16, 16), (17, 16), (40, 61)):
        calls: list[int] = []
        model = nn.Upsample(scale_factor=2)
        model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        predictor = Upscaler(model, arch, config, InferOptions())
        predicted = predictor.passes(np.zeros((*size, 3), np.uint8))
        calls.clear()
        upscale_image(model, torch.rand(3, *size), 2, config.section(TileConfig))
        assert predicted == len(calls)
