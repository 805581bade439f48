"""`kdp prune` and `kdp rebuild` as a user runs them."""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from kdp.artifacts import load
from kdp.errors import Interrupted, KdpError
from kdp.models.loading import load_network
from kdp.pruning.masks import masks_applied
from kdp.stages.prune import rebuild as rebuild_stage
from kdp.stages.prune import score_cache as scores_module
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from kdp.tasks.super_resolution.groups import catanet_groups
from tests import runs
from tests.runs import (
    DATA_CHANGES,
    change_data,
    complaints,
    config,
    config_file,
    run_kdp,
    start_kdp,
    wait_until,
)

SMALL = {"calibration": {"patches": 2, "patch_size": 10}}
PRUNE: dict[str, Any] = {
    "prune": SMALL,
    "mac_constraint": 0.8,
    "measure": {"input_size": [16, 16]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a teacher and nothing else."""
    runs.prune(tmp_path)
    for path in (tmp_path / "weights").iterdir():
        path.unlink()
    return tmp_path


def measured(folder: Path) -> dict[str, Any]:
    return load(folder / "weights" / "tiny_scores_optin.pth").extra


def test_prune_meets_its_budget_and_records_what_it_kept(folder: Path) -> None:
    done = run_kdp("prune", "--config", str(config_file(folder, **PRUNE)))
    assert done.returncode == 0, done.stderr
    assert "blocks.1" in done.stdout
    assert "% of the unpruned network's" in done.stdout
    assert "pruning_masks.pth, " in done.stderr
    assert "tiny_scores_optin.pth" in done.stderr
    extra = load(folder / "weights" / "tiny_pruning_masks.pth").extra
    budget, masks = extra["budget"], extra["masks"]
    assert budget["macs"] == budget["planned_macs"] <= 0.8 * budget["dense_macs"]
    assert all(mask.any() for mask in masks.values())
    assert any(not mask.all() for mask in masks.values())
    kept = {group: int(mask.sum()) for group, mask in masks.items()}
    assert budget["kept_units"] == kept


def test_the_pruned_network_equals_the_masked_teacher(folder: Path) -> None:
    result = prune(config(folder, **PRUNE))
    teacher, _, _ = load_network(folder / "teacher.pth")
    pruned, _, artifact = load_network(result.pruned)
    x = torch.rand(1, 3, 12, 12)
    with masks_applied(teacher, catanet_groups(teacher), result.plan.masks), torch.no_grad():
        torch.testing.assert_close(pruned(x), teacher(x))
    assert artifact.record.parents[0].path == str(folder / "teacher.pth")


def test_recovery_refits_layers_and_keeps_the_masks(folder: Path) -> None:
    cut = prune(config(folder, **PRUNE))
    before = load(cut.pruned).params
    recover = {"samples": 8, "holdout": 0.5}
    done = run_kdp("prune", "--config", str(config_file(folder, **PRUNE, recover=recover)))
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert re.search(r"layers refitted; distance of outputs .* -> .* \(8 samples", told)
    artifact = load(cut.pruned)
    changed = {k for k, v in artifact.params.items() if not torch.equal(v, before[k])}
    assert changed
    assert all(name.rpartition(".")[0].endswith((".proj", ".fc2")) for name in changed)
    reached = artifact.record.metrics["recovery"]
    assert reached["distance_after"] < reached["distance_before"]
    rebuilt = run_kdp("rebuild", "--config", str(config_file(folder, **PRUNE, recover=recover)))
    assert rebuilt.returncode == 0, rebuilt.stderr


def test_recovery_needs_samples_to_fit_and_to_hold_out(folder: Path) -> None:
    arguments = ("prune", "--config", str(config_file(folder, **PRUNE, recover={"samples": 1})))
    done = run_kdp(*arguments)
    assert done.returncode == 2
    assert complaints(done.stderr) == [
        "kdp: recover: 1 calibration sample is too few; set recover.samples"
    ]
    assert not (folder / "weights" / "tiny_pruned.pth").exists()


@pytest.mark.parametrize(
    "change",
    [{"mac_constraint": 0.7}, {"prune": {**SMALL, "options": {"output_share": 0.5}}}],
    ids=["another budget", "options that only combine"],
)
def test_cached_scores_are_reused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    prune(config(folder, **PRUNE))

    def refuse(*args: object) -> None:
        raise AssertionError("importance was measured again")

    monkeypatch.setattr(scores_module, "make_scorer", refuse)
    changed = config(folder, **{**PRUNE, **change})
    result = prune(changed)
    assert result.plan.macs <= (changed.mac_constraint or 0) * result.plan.dense_macs


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed=0, now seed=1"),
        (
            {"prune": {"calibration": {"patches": 3, "patch_size": 10}}},
            "calibration.patches=2, now calibration.patches=3",
        ),
        ({"prune": {**SMALL, "kinds": ["tab_heads", "tab_neurons", "lrsa_heads"]}}, "kinds=None"),
    ],
)
def test_scores_of_other_conditions_are_not_reused(
    folder: Path, change: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    prune(config(folder, **PRUNE))
    before = measured(folder)["key"]
    caplog.set_level(logging.INFO, "kdp")
    prune(config(folder, **{**PRUNE, **change}))
    assert measured(folder)["key"] != before
    assert f"was measured with {words}" in caplog.text


@pytest.mark.parametrize("change", DATA_CHANGES)
def test_scores_of_other_images_are_not_reused(folder: Path, change: str) -> None:
    settings = {**PRUNE, "prune": {**SMALL, "criterion": "magnitude"}}
    prune(config(folder, **settings))
    scores = folder / "weights" / "tiny_scores_magnitude.pth"
    before = load(scores).extra["key"]
    change_data(folder / "images", change)
    prune(config(folder, **settings))
    assert load(scores).extra["key"] != before


def test_the_same_command_twice_gives_the_same_masks(folder: Path) -> None:
    first = prune(config(folder, **PRUNE)).plan
    (folder / "weights" / "tiny_scores_optin.pth").unlink()
    second = prune(config(folder, **PRUNE)).plan
    assert all(torch.equal(first.masks[name], second.masks[name]) for name in first.masks)


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "random"])
def test_every_criterion_meets_the_same_budget(folder: Path, criterion: str) -> None:
    plan = prune(config(folder, **{**PRUNE, "prune": {**SMALL, "criterion": criterion}})).plan
    assert 0.75 * plan.dense_macs < plan.macs <= 0.8 * plan.dense_macs


def test_limits_and_kinds_hold(folder: Path) -> None:
    limits = {
        **SMALL,
        "kinds": ["tab_neurons", "lrsa_neurons"],
        "min_units": {"tab_neurons": 4},
        "round_to": {"lrsa_neurons": 2},
    }
    settings = {**PRUNE, "prune": limits, "mac_constraint": 0.97}
    plan = prune(config(folder, **settings)).plan
    kept = {name: int(mask.sum()) for name, mask in plan.masks.items()}
    assert all(n == 2 for name, n in kept.items() if name.endswith("heads"))
    assert all(n >= 4 for name, n in kept.items() if name.endswith("tab_neurons"))
    assert all(n % 2 == 0 for name, n in kept.items() if name.endswith("lrsa_neurons"))


def test_a_killed_search_resumes_to_the_same_masks(folder: Path) -> None:
    path = config_file(folder, **PRUNE)
    scores = folder / "weights" / "tiny_scores_optin.pth"
    process = start_kdp("prune", "--config", str(path))
    wait_until(scores.exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run_kdp("prune", "--config", str(path), "--resume").returncode == 0
    resumed = load(folder / "weights" / "tiny_pruning_masks.pth").extra["masks"]
    scores.unlink()
    whole = prune(config(folder, **PRUNE)).plan.masks
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_stopped_search_measures_only_the_rest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited: list[str] = []
    real = scores_module.make_scorer

    def watched(*args: Any) -> Any:
        score = real(*args)

        def visit(group: Any) -> torch.Tensor:
            visited.append(group.name)
            if len(visited) == 3:
                signal.raise_signal(signal.SIGINT)
            return score(group)

        return visit

    monkeypatch.setattr(scores_module, "make_scorer", watched)
    with pytest.raises(Interrupted, match="--resume"):
        prune(config(folder, **PRUNE))
    with pytest.raises(KdpError, match=r"unfinished measurement \(3 groups\): continue with --res"):
        prune(config(folder, **PRUNE))
    prune(config(folder, **PRUNE), resume=True)
    assert len(visited) == len(set(visited)) == 8


def test_the_bar_moves_within_a_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, str | None]] = []

    @contextmanager
    def bar(*_: Any) -> Iterator[Callable[..., None]]:
        yield lambda count=1, note=None: steps.append((count, note))

    monkeypatch.setattr(scores_module, "progress", bar)
    optin = import_module("kdp.pruning.importance.optin")  # the package has the function
    monkeypatch.setattr(optin, "ROWS_AT_ONCE", 1)
    groups = prune(config(folder, **PRUNE)).groups
    names = [note for _, note in steps if note]
    assert names == [group.name for group in groups]
    assert [count for count, note in steps if note is None and count] == [1] * sum(
        group.units for group in groups
    )


def test_ctrl_c_ends_the_search_in_one_line(folder: Path) -> None:
    process = start_kdp("prune", "--config", str(config_file(folder, **PRUNE)))
    wait_until((folder / "weights" / "tiny_scores_optin.pth").exists, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    if process.returncode != 0:  # a fast machine may have finished
        assert process.returncode == 130
        assert len(complaints(stderr)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mac_constraint": 0.05}, "cannot be reached"),
        ({"prune": {**SMALL, "kinds": []}}, "nothing to prune"),
        ({"mac_constraint": None}, "needs `teacher`, and `mac_constraint` or"),
        (
            {"teacher": "missing.pth"},
            r"missing.pth does not exist.* name the file with teacher=FILE",
        ),
        ({"teacher": "w/a.pth", "output": {"name": "x", "dir": "w"}}, "looked for in output.dir"),
        ({"prune": {**SMALL, "criterion": "hessian"}}, "available: optin"),
        ({"prune": {**SMALL, "min_units": {"heads": 1}}}, "no kind of group is called 'heads'"),
    ],
)
def test_a_wrong_request_is_a_one_line_error(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdpError, match=message):
        prune(config(folder, **{**PRUNE, **change}))
    assert not list((folder / "weights").glob("*pruned*"))


def test_a_second_search_of_the_same_file_is_refused(folder: Path) -> None:
    from kdp.files import file_lock

    settings = config(folder, **PRUNE)
    with (
        file_lock(folder / "weights" / "tiny_pruning_masks.pth"),
        pytest.raises(KdpError, match="another run is writing"),
    ):
        prune(settings)


def test_rebuild_writes_a_smaller_equivalent_network(folder: Path) -> None:
    settings = config(folder, **PRUNE)
    result = prune(settings)
    done = rebuild(settings, source=result.pruned)
    pruned, _, _ = load_network(result.pruned)
    small, arch, artifact = load_network(done.path)
    x = torch.rand(2, 3, 14, 11)
    with torch.no_grad():
        torch.testing.assert_close(small(x), pruned(x), rtol=1e-4, atol=1e-5)
    assert done.parameters < done.full_parameters
    kept = {name: int(mask.sum()) for name, mask in result.plan.masks.items()}
    for kind in ("tab_heads", "tab_neurons", "lrsa_heads", "lrsa_neurons"):
        assert arch.args[kind] == [kept[f"blocks.{i}.{kind}"] for i in range(2)]
    origin = artifact.record.parents[0].record.parents[0].path
    assert origin == str(folder / "teacher.pth")


def test_rebuild_refuses_a_network_that_differs(folder: Path) -> None:
    settings = config(folder, **PRUNE)
    result = prune(settings)
    with pytest.MonkeyPatch.context() as patch:
        from kdp.pruning import rebuild as module

        wrong = module.smaller_params
        patch.setattr(
            module,
            "smaller_params",
            lambda params, groups, masks: wrong(
                params, groups, {name: mask.flip(0) for name, mask in masks.items()}
            ),
        )
        target = folder / "wrong.pth"
        with pytest.raises(KdpError, match="differs from its source"):
            rebuild(settings, source=result.pruned, target=target)
        assert not target.exists()
    assert result.masks.exists()


def test_rebuild_refuses_a_kept_weight_that_is_one_percent_off(folder: Path) -> None:
    settings = config(folder, **PRUNE)
    source, cut = prune(settings).pruned, rebuild_stage.cut
    attention, ffn = "blocks.0.0.iasa_attn", "blocks.0.1.layer.1.fn"
    matrices = [f"{attention}.{part}.weight" for part in ("to_q", "to_v")]
    matrices += [f"{ffn}.fc1.weight", "first_conv.weight"]
    for name in matrices:

        def off(*arguments: Any, name: str = name) -> Any:
            small, arch = cut(*arguments)
            small.state_dict()[name].view(-1)[0].mul_(1.01)
            return small, arch

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rebuild_stage, "cut", off)
            with pytest.raises(KdpError, match="differs from its source"):
                rebuild(settings, source=source, overwrite=True)


def test_rebuild_refuses_masks_of_another_network(folder: Path) -> None:
    from kdp.artifacts import Artifact, save

    settings = config(folder, **PRUNE)
    result = prune(settings)
    other = folder / "other_masks.pth"
    save(other, Artifact({}, extra={"masks": {"blocks.0.tab_heads": torch.ones(7).bool()}}))
    done = run_kdp(
        "rebuild",
        "--config",
        str(config_file(folder, **PRUNE)),
        "--from",
        str(result.pruned),
        "--masks",
        str(other),
    )
    assert done.returncode == 2
    assert "masks of another network" in complaints(done.stderr)[0]
    assert settings.output.dir.joinpath("tiny_rebuilt.pth").exists() is False


def test_validate_accepts_a_valid_setup_and_names_what_is_wrong(folder: Path) -> None:
    good = run_kdp("validate", "--config", str(config_file(folder, **PRUNE)))
    assert good.returncode == 0, good.stdout + good.stderr
    assert "measuring their importance takes roughly" in good.stdout
    assert "6 steps take roughly" in good.stdout
    (folder / "evaluation" / "1.png").write_bytes(b"no image")
    bad = run_kdp("validate", "--config", str(config_file(folder, **PRUNE)))
    assert bad.returncode == 2
    assert "FAIL data: cannot read the image" in bad.stdout
    assert "1.png" in bad.stdout


def test_paths_are_make_assignments(folder: Path) -> None:
    done = run_kdp("paths", "--config", str(config_file(folder, **PRUNE)))
    assert f"REBUILT := {folder}/weights/tiny_rebuilt.pth\n" in done.stdout
    assert f"TEACHER := {folder}/teacher.pth\n" in done.stdout
    assert f"CONFIGS := {folder}/config.yml\n" in done.stdout
