"""Devices whose speeds are equal or drawn from a distribution."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from fedmtl.components import Param
from fedmtl.randomness import numpy_generator
from simulations.devices.kinds import Per, Speeds, World

Form = Literal["binned", "plain"]

FLOOR = 0.1
"""No device is more than ten times as fast as the mean: the left tails of the distributions reach 0 and below."""


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

    Both ends are included. The tick clock of FedQS's authors lets a client idle for one tick between two orders, so
    that its period is r + 1 ticks: set ``startup`` to a tick's seconds for it.
    """
    r = numpy_generator(world.seed, "devices").integers(1, ratio, size=world.clients, endpoint=True)
    return Speeds.per(per, r.astype(np.float64) * tick)


def normal(
    world: World,
    *,
    mean: Annotated[float, Param("mean seconds per step", gt=0, source="authors' code")] = 0.15,
    scale: Annotated[float, Param("deviation between devices, in means", ge=0, source="authors' code")] = 0.3,
    floor: Annotated[float, Param("least seconds per step, in means", gt=0, le=1)] = FLOOR,
) -> Speeds:
    """Normally distributed seconds per step, never below a floor (FedCompass's setting "normal").

    ``t_i = mean * max(1 + scale * z_i, floor)``. At the default scale one device in 740 lies at the floor.
    """
    z = numpy_generator(world.seed, "devices").standard_normal(world.clients)
    return Speeds(seconds_per_step=mean * np.maximum(1 + scale * z, floor))


def exponential(
    world: World,
    *,
    mean: Annotated[float, Param("mean seconds per step", gt=0, source="authors' code")] = 0.15,
    exp_form: Annotated[Form, Param("binned and shifted, or plain")] = "binned",
    scale: Annotated[
        float, Param("binned: mean of the exponential part, in means", gt=0, le=1, source="authors' code")
    ] = 0.5,
    bin_size: Annotated[float, Param("binned: width of a bin, in means", gt=0, source="authors' code")] = 0.1,
    floor: Annotated[float, Param("least seconds per step, in means", gt=0, le=1)] = FLOOR,
) -> Speeds:
    """Exponentially distributed seconds per step: many fast devices, few slow ones (FedCompass's setting "exp").

    Plain: ``t_i = mean * max(x_i, floor)`` with x_i ~ Exp(1). Binned: ``t_i = mean * (1 - scale + b_i)``, where b_i is
    the middle of the bin that a draw of Exp(scale) falls into. Middles raise the mean of the devices by at most
    ``bin_size^2 / (12 scale)`` of itself. The authors publish the numbers of the binned form but not the code that
    reads them; this reading of them is ours.
    """
    x = numpy_generator(world.seed, "devices").standard_exponential(world.clients)
    if exp_form == "binned":
        middles = (np.floor(scale * x / bin_size) + 0.5) * bin_size
        x = 1 - scale + middles
    return Speeds(seconds_per_step=mean * np.maximum(x, floor))
