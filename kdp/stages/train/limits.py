"""What a network may cost at most, checked before any time is spent on it."""

from __future__ import annotations

from kdp.config.measure import LimitsConfig
from kdp.errors import KdpError
from kdp.measure.complexity import parameter_bytes
from kdp.stages.costs import Costs


def check_limits(limits: LimitsConfig, costs: Costs, name: str) -> None:
    """Make sure that a network, as it will be deployed, costs no more than the limits.

    Args:
        limits: the section of the configuration.
        costs: of the network.
        name: of its architecture.

    Raises:
        KdpError: it costs more.
    """
    values = {"bytes": parameter_bytes(costs.parameters, limits.bits), "macs": costs.macs}
    for what, limit in (("bytes", limits.bytes), ("macs", limits.macs)):
        if limit is not None and values[what] > limit:
            raise KdpError(f"limits.{what}: {name} takes {values[what]:,}, more than {limit:,}")
