"""Which masked network of a chain the next stage reads."""

from __future__ import annotations

from pathlib import Path

from kdp.artifacts import load
from kdp.files import sha256
from kdp.log import log
from kdp.stages.paths import ChainPaths, check_made


def latest_masked(paths: ChainPaths) -> Path:
    """The network that `kdp recover` made of the pruned one, or the pruned one.

    One that was made of an earlier pruned network is left aside, and a line says so.

    Raises:
        KdpError: no network was pruned, or a file cannot be read.
    """
    check_made(paths.pruned, "prune")
    if not paths.recovered.exists():
        return paths.pruned
    record = load(paths.recovered).record
    if record and record.parents and record.parents[0].sha256 == sha256(paths.pruned):
        return paths.recovered
    log.info(
        f"{paths.recovered} was made from an earlier {paths.pruned} and is not used: run "
        "`kdp recover` again, or name it with --from"
    )
    return paths.pruned
