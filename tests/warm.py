"""What the first command of a process computes, imported by the process that others are forked off.

Counting MACs imports kernels, and the schema of configurations is made of all families' sections.
"""

from __future__ import annotations

import torch

from kdp.config.schema import full_schema
from kdp.measure.complexity import count_macs
from kdp.models import build_on_meta
from kdp.types import Arch
from tests.conftest import TINY

full_schema()
count_macs(build_on_meta(Arch("catanet", TINY)), torch.zeros(1, 3, 16, 16, device="meta"))
