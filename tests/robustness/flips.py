"""Files of weights with one bit flipped: they are refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from random import Random

from tests.robustness.cases import Folders, environment
from tests.robustness.chain import CHECKPOINT
from tests.robustness.client import Kdp, faults
from tests.robustness.kills import same_weights

FOREIGN = "foreign.pth"
FILES = (
    *("weights/tiny.pth", "weights/tiny_finetuned_logits.pth", "weights/tiny_rebuilt.pth"),
    *("weights/tiny_pruning_masks.pth", "weights/tiny_scores_magnitude.pth", CHECKPOINT),
    f"../{FOREIGN}",
)


def run(kdp: Kdp, random: Random, folders: Folders) -> tuple[Sequence[str], Sequence[str]]:
    """Flip a bit of a file and inspect it."""
    path = folders.work / "flipped.pth"
    original = folders.base / "chain" / random.choice(FILES)
    shutil.copy(original, path)
    data = bytearray(path.read_bytes())
    place = random.randrange(len(data))
    data[place] ^= 1 << random.randrange(8)
    path.write_bytes(data)
    command = ("inspect-weights", path.name)
    result = kdp.run(command, folders.work, environment(folders))
    problems = faults(result)
    if result.code == 0 and original.name == FOREIGN and same_weights(path, original):
        return command, problems  # headers of archives of other programs have no checksum
    if result.code == 0:
        problems.append(f"unnoticed: a bit of byte {place}")
    elif path.name not in result.stderr:
        problems.append(f"no name in {result.stderr[-200:]!r}")
    return command, problems
