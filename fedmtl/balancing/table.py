"""The balancers by name."""

from __future__ import annotations

from collections.abc import Callable

from fedmtl.balancing.base import Balancer
from fedmtl.balancing.equal import Equal
from fedmtl.balancing.equal_probed import EqualProbed
from fedmtl.balancing.ntkmtl import NTKMTL
from fedmtl.balancing.ntkmtl_sr import NTKMTLSR
from fedmtl.components import create
from fedmtl.protocol import Balancing

BALANCERS: dict[str, Callable[..., Balancer]] = {
    "equal": Equal,
    "equal-probed": EqualProbed,
    "ntkmtl": NTKMTL,
    "ntkmtl-sr": NTKMTLSR,
}


def build_balancer(balancing: Balancing) -> Balancer:
    """The balancer that a client was told to use.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or the options do not fit together.
    """
    return create(BALANCERS, balancing.name, balancing.options, "balancing")


def bytes_up(balancing: Balancing, tasks: int) -> int:
    """Bytes that a client with so many tasks sends up because its balancer reports: 8 for each task, and 16."""
    return 8 * tasks + 16 if getattr(BALANCERS[balancing.name], "reports", False) else 0
