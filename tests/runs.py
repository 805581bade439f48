"""Small real runs of the command line and of the stages."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from hydra.core.global_hydra import GlobalHydra

from kdp import written
from kdp.artifacts import Artifact, make_record, save
from kdp.config import Config
from kdp.models import build
from kdp.pruning.groups import Masks, full_masks
from kdp.pruning.masks import zero_removed
from kdp.tasks.super_resolution.groups import catanet_groups
from kdp.types import Arch
from tests.conftest import ROOT, TINY

SHORT: dict[str, Any] = {
    "steps": 6,
    "batch_size": 2,
    "lr": 1e-3,
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "validate_every": 2,
    "checkpoint_every": 2,
    "log_every": 1,
}


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A configuration that trains and fine-tunes a tiny CATANet on three images, on a CPU."""
    images, others = (
        {
            "kind": "hr_only",
            "hr": str(_images(folder / name, count)),
            "cache": str(folder / "cache"),
        }
        for name, count in (("images", 3), ("evaluation", 2))
    )
    return {
        "device": "cpu",
        "output": {"name": "tiny", "dir": str(folder / "weights"), "runs": str(folder / "runs")},
        "model": {"name": "catanet", "args": TINY},
        "teacher": str(folder / "teacher.pth"),
        "data": {**images, "patch_size": 12},
        "evaluation": {"small": others},
        "train": SHORT,
        "finetune": SHORT,
        "distill": {
            "losses": {
                "fakd": {"weight": 10, "options": {"sample": 16}},
                "feature": {"schedule": "cosine"},
            }
        },
        **changes,
    }


def config(folder: Path, **changes: Any) -> Config:
    """`settings`, checked."""
    return Config.model_validate(settings(folder, **changes))


def config_file(folder: Path, **changes: Any) -> Path:
    """`settings` as a file."""
    path = folder / "config.yml"
    path.write_text(yaml.safe_dump(settings(folder, **changes), sort_keys=False))
    return path


def prune(folder: Path) -> Masks:
    """Write a teacher, a pruned network and its masks, as `kdp prune` would."""
    torch.manual_seed(5)
    model, arch = build("catanet", **TINY), Arch("catanet", TINY)
    with torch.no_grad():  # larger than at the start of a training, so that units matter
        for parameter in model.parameters():
            parameter.mul_(2).add_(0.02 * torch.randn_like(parameter))
    record = make_record("train", {"seed": 0})
    save(folder / "teacher.pth", Artifact(model.state_dict(), arch, record))
    groups = catanet_groups(model)
    masks = full_masks(groups)
    for number, mask in enumerate(masks.values()):
        mask[: 1 + number % 2] = False
    zero_removed(model, groups, masks)
    weights = folder / "weights"
    save(weights / "tiny_pruned.pth", Artifact(model.state_dict(), arch, record))
    save(weights / "tiny_pruning_masks.pth", Artifact({}, arch, record, {"masks": masks}))
    return masks


class KdpProcess:
    """A running `kdp`, forked off a process that has imported the libraries already.

    Starting Python and importing torch takes more processor time than most commands need. The
    interface is the part of `subprocess.Popen` that tests use.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path = ROOT,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Start it; `before` is run in the process first and has to be picklable."""
        self.args = ["kdp", *arguments]
        self._folder = TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        run = (self.args, self._outputs, cwd, before)
        self._process = _FORKS.Process(target=_run_main, args=run)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Exit status, negative for a signal; the process is killed if it takes too long."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise TimeoutError(f"{self.args} takes longer than {timeout} s")
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end; standard output and standard error."""
        self.wait(timeout)
        stdout, stderr = (path.read_text() if path.exists() else "" for path in self._outputs)
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "accelerate",
        "matplotlib.figure",
        "torch._dynamo",
        "kdp.cli",
        "kdp.stages.compare.compare",
        "kdp.stages.prune.prune",
        "kdp.stages.train.train",
        "tests.warm",
    ]
)


def _run_main(
    command: list[str], outputs: list[Path], cwd: Path, before: Callable[[], object] | None
) -> None:
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    if cwd == ROOT:
        written.WRITTEN_FILE = outputs[0].with_name("written.jsonl")
    sys.argv = command
    if before:
        before()
    runpy.run_module("kdp", run_name="__main__", alter_sys=True)


class _ForkedModule:
    """`subprocess.Popen` of `python -c CODE MODULE`, as a fork of this process.

    A new interpreter starts with default signal handlers and without an open Hydra application,
    so the fork does too.
    """

    def __init__(self, args: list[str], **options: Any) -> None:
        self.args = args
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._run, kwargs=options)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def _run(self, *, stdout: Any, stderr: Any, env: dict[str, str], **options: Any) -> None:
        if options["start_new_session"]:
            os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        GlobalHydra.instance().clear()
        os.environ.update(env)
        for number, file in enumerate((stdout, stderr), start=1):
            os.dup2(file.fileno(), number)
        sys.argv = self.args[2:]
        exec(self.args[2])

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


class _ForkingPopen(subprocess.Popen[Any]):
    """`subprocess.Popen` that runs modules of kdp in forks, and other programs as ever."""

    def __new__(cls, args: Any, *others: Any, **options: Any) -> Any:
        if list(args[:2]) == [sys.executable, "-c"] and args[3].startswith("kdp"):
            return _ForkedModule(args, **options)
        return super().__new__(cls)


def fork_modules() -> None:
    """Let a process fork instead of starting new interpreters, which import everything again."""
    vars(subprocess)["Popen"] = _ForkingPopen


def run_kdp(
    *arguments: str, cwd: Path = ROOT, before: Callable[[], object] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m kdp` to its end."""
    return ended(KdpProcess(arguments, cwd, before))


def start_kdp(*arguments: str, before: Callable[[], object] | None = None) -> KdpProcess:
    """Start `python -m kdp`."""
    return KdpProcess(arguments, before=before)


def spawn_kdp(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start `python -m kdp` in a new interpreter, for what is decided at import."""
    command = [sys.executable, "-m", "kdp", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def ended(process: KdpProcess | subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process that was started."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def wait_until(ready: Callable[[], bool], process: KdpProcess) -> None:
    """Wait until a condition holds; fail if the process ends first."""
    end = time.monotonic() + 180
    while not ready():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def as_rank(rank: int, port: int) -> None:
    """Make this process a rank of two, as torchrun does."""
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank}
    local = {"LOCAL_WORLD_SIZE": 2, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in {**world, **local}.items()})


def run_ranks(function: Callable[..., None], *arguments: Any, timeout: float = 120) -> list[int]:
    """Call a function in two processes, each a rank of two; their exit codes.

    A rank that waits for the other one for ever is killed, and ends with a negative code.

    Args:
        function: takes the rank and the arguments; it has to be picklable.
    """
    port = free_port()
    ranks = [
        _FORKS.Process(target=_call_as_rank, args=(rank, port, function, arguments))
        for rank in (0, 1)
    ]
    end = time.monotonic() + timeout
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(max(0.0, end - time.monotonic()))
        process.kill()
        process.join()
    return [process.exitcode or 0 for process in ranks]


def _call_as_rank(
    rank: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    as_rank(rank, port)
    function(rank, *arguments)


def complaints(stderr: str) -> list[str]:
    """Error lines of `kdp`; there must be no traceback."""
    assert "Traceback" not in stderr, stderr
    return [line for line in stderr.splitlines() if line.startswith("kdp:")]


DATA_CHANGES = ("replaced", "replaced at equal size and time", "added", "removed", "renamed")


def change_data(folder: Path, change: str) -> None:
    """Change a folder of images as a user might, all of them but the first one.

    Args:
        folder: of PNG files.
        change: one of `DATA_CHANGES`.
    """
    last = max(folder.iterdir())
    if change == "replaced":
        shutil.copy(min(folder.iterdir()), last)
    elif change == "replaced at equal size and time":
        state, data = last.stat(), last.read_bytes()
        last.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(last, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "added":
        shutil.copy(last, folder / f"z{last.name}")
    elif change == "removed":
        last.unlink()
    elif change == "renamed":
        last.rename(folder / f"0{last.name}")


def _images(folder: Path, count: int) -> Path:
    """A folder with as many images, all different from those of other counts."""
    if not folder.exists():
        folder.mkdir()
        for number in range(count):
            random = np.random.default_rng((count, number))
            coarse = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder
