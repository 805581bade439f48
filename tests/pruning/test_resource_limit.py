"""Limits of time and memory."""

from __future__ import annotations

import subprocess
import sys


def test_work_is_stopped_at_the_memory_limit() -> None:
    """In a process of its own: the limit is beyond the most that one has ever had."""
    program = (
        "from kdp.pruning.resource_limit import limit_resources\n"
        "with limit_resources('hoarding', seconds=60, memory=1e8):\n"
        "    hoard = []\n"
        "    while True:\n"
        "        hoard.append(b'x' * 10**6)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.endswith("KdpError: hoarding was stopped at 0.1 GB of memory\n")
