"""What a network may take at most, checked before any time is spent on it."""

from __future__ import annotations

from kdp.config.measure import LimitsConfig
from kdp.errors import KdpError
from kdp.measure.complexity import count_macs, count_parameters, parameter_bytes
from kdp.models import build_on_meta, fused_arch
from kdp.tasks.base import ExampleTask
from kdp.types import Arch


def check_limits(limits: LimitsConfig, task: ExampleTask, arch: Arch) -> None:
    """Make sure that a network, as it will be deployed, costs no more than the limits.

    Raises:
        KdpError: it costs more, or its cost cannot be measured.
    """
    try:
        shapes = build_on_meta(fused_arch(arch))
        macs = count_macs(shapes, task.example(task.input_size).to("meta"))
    except Exception as error:  # whatever stops the count, there is no number to trust
        raise KdpError(f"limits: what {arch.name} takes cannot be measured: {error}") from error
    costs = {"bytes": parameter_bytes(count_parameters(shapes), limits.bits), "macs": macs}
    for what, limit in (("bytes", limits.bytes), ("macs", limits.macs)):
        if limit is not None and costs[what] > limit:
            raise KdpError(f"limits.{what}: {arch.name} takes {costs[what]:,}, more than {limit:,}")
