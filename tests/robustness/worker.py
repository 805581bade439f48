"""Runs `kdp` in forks of one process that has imported everything, within limits.

A program of its own, which imports nothing of the tests: PYTHONPATH decides which checkout of kdp
it runs. It reads one request a line on standard input and answers with one line, both JSON.

request: `arguments` of kdp, the folder `cwd`, `environment` (added), and optionally `kill_at`: the
    the file operation before which the run kills itself: its number, or a pattern of its name and
    the name of its file, such as `open .checkpoint.pth.*`.
reply: see `tests.robustness.client.Result`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

MAX_SECONDS = 10.0
"""Processor time of a run, and time without any progress, after which it counts as hanging."""
MAX_BYTES = 2_000_000_000
"""Resident memory of a run."""
ADDRESS_SPACE = 6_000_000_000
"""Beyond what the libraries map; protects the machine from one huge allocation."""
FILE_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link"}
PRELOADED = (
    "accelerate",
    "kdp.cli",
    "kdp.config.compose",
    "kdp.stages.chains",
    "kdp.stages.compare.compare",
    "kdp.stages.compare.tables",
    "kdp.stages.export.export",
    "kdp.stages.infer.infer",
    "kdp.stages.inspect_weights",
    "kdp.stages.prune.prune",
    "kdp.stages.prune.rebuild",
    "kdp.stages.train.finetune",
    "kdp.stages.train.train",
    "kdp.stages.validate",
    "kdp.tasks.classification.task",
    "kdp.tasks.detection.task",
    "kdp.tasks.scenes.task",
    "kdp.tasks.super_resolution.task",
    "matplotlib.figure",
    "onnxruntime",
    "soundfile",
    "torch._dynamo",
    "transformers",
)
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Answer requests until standard input ends."""
    sys.path[:] = [
        path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent
    ]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    _warm_up()
    gc.freeze()  # the forks need not look at what is here to stay
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), file=replies, flush=True)


def _warm_up() -> None:
    """Build the command line and the schema once, if the checkout has them where this one does."""
    with suppress(ImportError, AttributeError):
        import typer

        from kdp.cli import app

        vars(typer.main)["get_command"] = cache(typer.main.get_command)
        typer.main.get_command(app)
        from kdp.config.schema import full_schema

        full_schema()


def _run(request: dict[str, Any]) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr", "operations")]
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _child(request, files)
        ended, status, usage = _watch(pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # whatever the run has left behind
        texts = [path.read_bytes()[:500_000].decode(errors="replace") for path in files]
        return {
            "code": os.waitstatus_to_exitcode(status),
            "stdout": texts[0],
            "stderr": texts[1],
            "operations": len(texts[2]),
            "ended": ended,
            "seconds": time.monotonic() - started,
            "processor_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * 1024,
        }


def _watch(pid: int) -> tuple[str, int, resource.struct_rusage]:
    """Wait for the end, or end it; why it was ended, its status and what it used."""
    ended, pause = "", 0.002
    progress = (time.monotonic(), 0.0)
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return ended, status, usage
        seconds, size = _usage(pid)
        now = time.monotonic()
        if seconds > progress[1]:
            progress = (now, seconds)
        if size > MAX_BYTES:
            ended = "memory"
        elif max(seconds, now - progress[0]) > MAX_SECONDS:
            ended = "hang"
        if ended:
            os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _usage(pid: int) -> tuple[float, int]:
    """Processor seconds and resident bytes of a process."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        return (int(times[11]) + int(times[12])) / _TICKS, int(pages[1]) * resource.getpagesize()
    except (OSError, IndexError):  # it has just ended
        return 0.0, 0


def _child(request: dict[str, Any], files: list[Path]) -> NoReturn:
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(files[:2], start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(request["cwd"])
    os.environ.update(request.get("environment", {}), COLUMNS="200")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    _count_operations(files[2], request.get("kill_at"))
    sys.argv = ["kdp", *request["arguments"]]
    code = 1
    try:
        from kdp.cli import main as kdp

        kdp()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if code == 1 and end.__cause__ is not None:  # a bug, of which kdp prints one line
            traceback.print_exception(end.__cause__)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _count_operations(path: Path, kill_at: int | str | None) -> None:
    """Append a byte to a file for each operation on files that may write, or end before one."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in FILE_OPERATIONS or (event == "open" and not _writes(arguments)):
            return
        count += 1
        operation = f"{event} {Path(str(arguments[0])).name}"
        if count == kill_at or (isinstance(kill_at, str) and fnmatch(operation, kill_at)):
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(log, b".")

    sys.addaudithook(hook)


def _writes(arguments: tuple[Any, ...]) -> bool:
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


if __name__ == "__main__":
    main()
