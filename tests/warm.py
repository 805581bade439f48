"""What commands share, imported by the process that they are forked off.

Counting MACs imports kernels, the schema of configurations is made of all families' sections, and
Typer makes the command line anew for every command. Trainings draw no curves.
"""

from __future__ import annotations

import gc
from functools import cache

import torch
import typer

from kdp.cli import app
from kdp.config.schema import full_schema
from kdp.measure.complexity import count_macs
from kdp.models import build_on_meta
from kdp.training import curves
from kdp.types import Arch
from tests.conftest import TINY, no_plot

vars(curves)["plot_curves"] = no_plot
vars(typer.main)["get_command"] = cache(typer.main.get_command)
typer.main.get_command(app)
full_schema()
count_macs(build_on_meta(Arch("catanet", TINY)), torch.zeros(1, 3, 16, 16, device="meta"))
gc.freeze()  # the forks need not look at what is here to stay
