"""Run chosen cases: `python -m tests.robustness KIND SEED FIRST [LAST]`.

A single case prints its messages. `--checkout FOLDER` runs the kdp of another checkout.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.conftest import ROOT
from tests.robustness.base import write_base
from tests.robustness.cases import run_cases
from tests.robustness.chain import write_chain
from tests.robustness.client import Kdp
from tests.robustness.kinds import KINDS


def main() -> None:
    """Run the cases, print the failures and how often each fault occurs."""
    parser = argparse.ArgumentParser(prog="python -m tests.robustness", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("seed", type=int)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, nargs="?")
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--folder", type=Path, help="for the inputs; temporary if not given")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no case after this time")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kdp-robustness-"))
    base = write_base(folder / "base") if not (folder / "base").exists() else folder / "base"
    last = options.first if options.last is None else options.last
    numbers = range(options.first, last + 1)
    counts: Counter[str] = Counter()
    end = time.monotonic() + options.seconds
    done = 0
    with Kdp() as kdp:
        write_chain(kdp, base)
    with Kdp(options.checkout) as kdp:
        for number in numbers:
            if time.monotonic() > end:
                break
            run = KINDS[options.kind].run
            for failure in run_cases(kdp, options.kind, run, base, folder, options.seed, [number]):
                print(failure, flush=True)
                counts.update(re.sub(r"0x\w+|/\S+/", "", fault) for fault in failure.faults)
            done += 1
    print(f"{done} cases, up to number {options.first + done - 1}; {counts.total()} faults")
    for fault, count in counts.most_common():
        print(f"{count:5} {fault[:250]}")


if __name__ == "__main__":
    main()
