"""`kdp compare`, through the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kdp.artifacts import Artifact, make_record, save
from kdp.cli import app
from kdp.data import pairs
from kdp.data.images import png_bytes, read_rgb
from kdp.data.resize import bicubic_uint8
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs_of
from kdp.models import build
from kdp.stages.compare.compare import compare
from kdp.stages.defaults import config_or_defaults
from kdp.types import Arch
from tests.conftest import TINY
from tests.runs import run_kdp

SMALLER = {**TINY, "tab_heads": [1, 2], "lrsa_neurons": [6, 0]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks of x2, one of x4, and two pairs of images."""
    root = tmp_path_factory.mktemp("compare")
    for name, args in (("teacher", TINY), ("rebuilt", SMALLER), ("x4", {**TINY, "upscale": 4})):
        torch.manual_seed(0)
        params = build("catanet", **args).state_dict()
        arch = Arch("catanet", args)
        save(root / f"net_{name}.pth", Artifact(params, arch, make_record("train", {})))
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        hr = cv2.resize(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8), (44, 36))
        for part, image in (("hr", hr), ("lr", bicubic_uint8(hr, 0.5))):
            (root / part).mkdir(exist_ok=True)
            (root / part / f"{name}.png").write_bytes(png_bytes(image))
    return root


def arguments(folder: Path, *more: str) -> list[str]:
    images = f"{{kind:paired,hr:{folder}/hr,lr:{folder}/lr}}"
    sets = (f"evaluation={{Tiny:{images}}}", "measure.latency_size=[16,16]")
    sizes = ("measure.input_size=[16,18]", "measure.latency_runs=3", "measure.warmup_runs=1")
    return [*(part for pair in (*sets, *sizes) for part in ("--set", pair)), *more]


def kdp(folder: Path, command: str, *more: str, names: tuple[str, ...]) -> Any:
    files = [str(folder / f"net_{name}.pth") for name in names]
    return CliRunner().invoke(app, [command, *files, *arguments(folder, *more)])


@pytest.fixture(scope="module")
def measured(folder: Path) -> tuple[dict[str, Any], str]:
    """JSON and printed output of a comparison of two networks."""
    target = folder / "table.json"
    more = ["--json", str(target), "--md", str(folder / "table.md")]
    more += ["--csv", str(folder / "table.csv"), "--images", str(folder / "images")]
    result = kdp(folder, "compare", *more, names=("teacher", "rebuilt"))
    assert result.exit_code == 0, result.output
    return json.loads(target.read_text()), result.output


def test_measurements_match_the_files(measured: Any, folder: Path) -> None:
    table, _ = measured
    first, second = table["columns"]
    example = torch.rand(1, 3, 16, 18)
    assert first["label"] == "teacher"
    assert second["macs"] == count_macs_of(Arch("catanet", SMALLER), example)
    assert first["macs"] > second["macs"]
    assert first["module_macs"] < first["macs"]
    assert second["file_bytes"] == (folder / "net_rebuilt.pth").stat().st_size
    assert second["parameters"] == sum(p.numel() for p in build("catanet", **SMALLER).parameters())
    assert second["latency"]["runs"] == 3


def test_quality_matches_the_task(measured: Any, folder: Path) -> None:
    from kdp.config import Config
    from kdp.models.loading import load_network
    from kdp.tasks import task_for

    model, arch, _ = load_network(folder / "net_rebuilt.pth")
    sets = {"Tiny": {"kind": "paired", "hr": folder / "hr", "lr": folder / "lr"}}
    config = Config.model_validate({"output": {"name": "x"}, "evaluation": sets})
    assert measured[0]["columns"][1]["quality"] == task_for(arch, config).evaluate(model)


def test_every_image_is_read_once_for_all_networks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path) -> np.ndarray:
        read.append(f"{path.parent.name}/{path.name}")
        return read_rgb(path)

    monkeypatch.setattr(pairs, "read_rgb", counted)
    config = config_or_defaults(None, [*arguments(folder)[1::2], "device=cpu"])
    compare([folder / "net_teacher.pth"], config)
    once = list(read)
    read.clear()
    compare([folder / f"net_{name}.pth" for name in ("teacher", "rebuilt", "teacher")], config)
    assert read == once
    assert {"hr/one.png", "hr/two.png"} <= set(once)


def test_the_table_shows_how_it_was_measured(measured: Any) -> None:
    table, printed = measured
    assert table["protocol"] == "x2: PSNR and SSIM on Y (BT.601), 2 px border cut off"
    assert table["samples"] == {"Tiny": 2}
    for text in (table["protocol"], "Tiny 2", "FlopCounterMode", "thop", "1x3x16x18", "threads"):
        assert text in printed


def test_columns_are_relative_to_the_first(measured: Any) -> None:
    rows = {row["name"]: row for row in measured[0]["rows"]}
    macs, psnr = rows["MACs, all"], rows["Tiny PSNR"]
    assert macs["relative"] == [1, pytest.approx(macs["values"][1] / macs["values"][0])]
    assert psnr["relative"] == [0, pytest.approx(psnr["values"][1] - psnr["values"][0])]


def test_every_format_holds_the_same_rows(measured: Any, folder: Path) -> None:
    table, printed = measured
    with (folder / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    markdown = (folder / "table.md").read_text()
    for row, line in zip(table["rows"], lines, strict=True):
        assert line["measure"] == row["name"]
        assert [float(line["teacher"]), float(line["rebuilt"])] == row["values"]
        assert row["name"] in markdown
        assert row["name"] in printed
    assert table["protocol"] in lines[0]["how"]


def test_images_show_every_sample(measured: Any, folder: Path) -> None:
    names = sorted(path.name for path in (folder / "images").iterdir())
    assert names == ["Tiny_one.png", "Tiny_two.png"]
    image = cv2.imread(str(folder / "images" / "Tiny_one.png"))
    panels = 4  # bicubic, two networks, HR
    assert image.shape[1] == panels * 44 * 4 + (panels - 1) * 4
    hr = cv2.imread(str(folder / "hr" / "one.png")).repeat(4, axis=0).repeat(4, axis=1)
    height, width = hr.shape[:2]
    tops = range(len(image) - height + 1)  # captions stand above and below
    assert any(np.array_equal(image[top : top + height, -width:], hr) for top in tops)


@pytest.mark.parametrize("name", ["../up", "a/b", "{tmp}/absolute", "a" * 300])
def test_images_stay_in_their_folder(folder: Path, tmp_path: Path, name: str) -> None:
    samples = {"kind": "paired", "hr": folder / "hr", "lr": folder / "lr"}
    file = tmp_path / "config.yml"
    sets = {name.format(tmp=tmp_path): {key: str(value) for key, value in samples.items()}}
    measure = {"latency_size": [16, 16], "latency_runs": 1, "input_size": [16, 18]}
    file.write_text(json.dumps({"output": {"name": "x"}, "evaluation": sets, "measure": measure}))
    images = tmp_path / "inner/images"
    command = ["compare", f"{folder}/net_teacher.pth", "-c", f"{file}", "--images", f"{images}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert len(list(images.iterdir())) == 2
    assert {path.suffix for path in tmp_path.rglob("*") if path.parent != images} <= {"", ".yml"}


def test_comparing_a_file_with_itself_shows_no_difference(folder: Path) -> None:
    target = folder / "same.json"
    more = ("--json", str(target))
    result = kdp(folder, "calculate-performance", *more, names=("teacher", "teacher"))
    assert result.exit_code == 0, result.output
    table = json.loads(target.read_text())
    assert [column["label"] for column in table["columns"]] == ["net_teacher", "net_teacher_2"]
    for row in table["rows"]:
        if not row["name"].startswith(("latency", "rate")):
            assert row["relative"] == ([0, 0] if row["relation"] == "difference" else [1, 1])


def test_four_columns_fit_eighty_characters(folder: Path) -> None:
    names = ("teacher", "rebuilt", "teacher", "rebuilt")
    result = kdp(folder, "compare", names=names)
    assert result.exit_code == 0, result.output
    table = result.output[: result.output.index("1: " + str(folder))].splitlines()
    assert max(map(len, table)) <= 80
    (psnr,) = (line for line in table if "PSNR" in line)
    assert psnr.count("(") == 3
    assert "…" not in "".join(table)


def test_columns_that_do_not_fit_stand_below_beside_the_first(folder: Path) -> None:
    result = kdp(folder, "compare", names=("teacher", "rebuilt") * 3)
    table = result.output[: result.output.index("1: " + str(folder))].splitlines()
    assert max(map(len, table)) <= 80
    first, second = (line for line in table if "PSNR" in line)
    assert (first.count("("), second.count("(")) == (3, 2)
    assert sorted(re.findall(r"(\d): ", "\n".join(table))) == list("1123456")


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        (("teacher", "x4"), (), "they solve different tasks"),
        (("teacher", "gone"), (), "net_gone.pth does not exist"),
        (("teacher",), ("--set", "measure.latency_run=3"), "did you mean"),
        (("teacher",), ("--config", "gone.yml"), "gone.yml does not exist"),
        (("teacher",), ("--device", "abacus"), "device 'abacus'"),
    ],
)
def test_bad_input_is_named(
    folder: Path, names: tuple[str, ...], more: tuple[str, ...], message: str
) -> None:
    result = kdp(folder, "compare", *more, names=names)
    assert isinstance(result.exception, KdpError)
    assert message in str(result.exception)


def test_networks_with_different_classes_are_not_compared(tmp_path: Path) -> None:
    paths = []
    for classes in (["bus", "park"], ["park", "bus"]):
        args = {"stem": 4, "channels": [8], "hidden": [8], "strides": [[2, 2]], "classes": classes}
        paths.append(tmp_path / f"{classes[0]}.pth")
        arch, params = Arch("cp_mobile", args), build("cp_mobile", **args).state_dict()
        save(paths[-1], Artifact(params, arch, make_record("train", {})))
    with pytest.raises(KdpError, match=r"cannot compare .*park\.pth \(classes park, bus\)"):
        compare(paths, config_or_defaults(None, ["device=cpu"]))


@pytest.mark.parametrize("what", ["input_size", "latency_size"])
def test_an_unsupported_size_is_a_one_line_error(tmp_path: Path, what: str) -> None:
    arch = Arch("mask_classifier", {"channels": [4, 4, 4], "image_size": 32})
    params = build("mask_classifier", **arch.args).state_dict()
    save(tmp_path / "net.pth", Artifact(params, arch, make_record("train", {})))
    config = config_or_defaults(None, [f"measure.{what}=[4,4]", "device=cpu"])
    with pytest.raises(KdpError, match="does not accept an input of 4x4"):
        compare([tmp_path / "net.pth"], config)


def test_an_error_is_one_line_with_exit_code_2(folder: Path) -> None:
    done = run_kdp("compare", str(folder / "gone.pth"))
    assert done.returncode == 2
    assert done.stderr == f"kdp: {folder / 'gone.pth'} does not exist\n"
