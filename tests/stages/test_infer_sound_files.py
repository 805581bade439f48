"""`kdp infer` on sounds with every kind of file that holds a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdp.config import Config
from kdp.stages.prune.prune import prune
from kdp.stages.prune.rebuild import rebuild
from tests.in_process import call_kdp
from tests.stages.sound_helpers import (
    NAMES,
    infer,
    probabilities,
    write_network,
    write_recordings,
)
from tests.traces import tracing_once


@pytest.fixture(scope="module")
def compressed(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, Path]]:
    """A file of each kind, with the one that it has to agree with."""
    folder = tmp_path_factory.mktemp("compressed")
    network = write_network(folder / "scenes.pth")
    plain = {
        "device": "cpu",
        "output": {"name": "small", "dir": str(folder), "runs": str(folder / "runs")},
        "teacher": str(network),
        "pruning_ratio": 0.4,
        "prune": {"criterion": "magnitude", "calibration": {"patches": 4}},
    }
    config = Config.model_validate(plain)
    masked = prune(config).pruned
    rebuilt = rebuild(config).path
    files = {"masked": (masked, rebuilt), "rebuilt": (rebuilt, masked)}
    with tracing_once():
        for precision in ("fp32", "fp16", "int8"):
            target = folder / f"{precision}.onnx"
            done = call_kdp("export", rebuilt, "--precision", precision, "-o", target)
            assert done.code == 0, done.stderr
            files[precision] = (target, rebuilt)
    return files.__getitem__


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    # Weights of 8 bits and activations that are quantised anew for every batch.
    [("masked", 1e-4), ("rebuilt", 1e-4), ("fp32", 1e-4), ("fp16", 2e-2), ("int8", 0.2)],
)
def test_every_kind_of_file_is_run(
    compressed: Callable[[str], tuple[Path, Path]], tmp_path: Path, kind: str, tolerance: float
) -> None:
    pytest.importorskip("onnxruntime")
    recordings = write_recordings(tmp_path)
    own, other = (
        probabilities(infer(file, recordings, "--format", "dcase").stdout)
        for file in compressed(kind)
    )
    assert list(own) == NAMES
    for name in NAMES:
        assert sum(own[name]) == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(own[name], other[name], atol=tolerance)
