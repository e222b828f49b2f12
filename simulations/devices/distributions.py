"""Devices whose speeds are equal or drawn from a distribution."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from fedmtl.components import Param
from fedmtl.randomness import numpy_generator
from simulations.devices.kinds import World, Per, Speeds


def homogeneous(
    world: World,
    *,
    seconds: Annotated[float, Param("seconds of an order or of a step", gt=0)] = 1.0,
    per: Annotated[Per, Param("what the seconds are counted per: order or step")] = "order",
) -> Speeds:
    """All devices are equally fast."""
    return Speeds.per(per, seconds)


def uniform(
    world: World,
    *,
    ratio: Annotated[int, Param("slowest device to fastest: r is drawn from 1..ratio", ge=1, source="paper")] = 50,
    per: Annotated[Per, Param("r is ticks per order or per step", source="paper")] = "order",
    tick: Annotated[float, Param("seconds of a tick", gt=0)] = 1.0,
) -> Speeds:
    """A whole number r of ticks per order, drawn from 1..ratio with equal chances (FedQS's "1:50").

    Both ends are included. The tick clock of FedQS's authors lets a client idle for one tick between two orders, so that
    its period is r + 1 ticks: set ``startup`` to a tick's seconds for it.
    """
    r = numpy_generator(world.seed, "devices").integers(1, ratio, size=world.clients, endpoint=True)
    return Speeds.per(per, r.astype(np.float64) * tick)
