"""Kinds of devices: a kind says how fast each client is; what all kinds share is said once, here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmtl.components import Param
from simulations.devices.profile import Devices

Per = Literal["order", "step"]


@dataclass(frozen=True)
class World:
    """What a kind may depend on.

    Attributes
    ----------
    clients
        Number of clients.
    seed
        Of the devices: ``devices.seed``, or the run's.
    model
        The model that is trained, or None if it is not known.
    batch
        A batch of inputs of the size that is trained on, shape [batch, ...], or None if it is not known.
    """

    clients: int
    seed: int
    model: nn.Module | None = None
    batch: Tensor | None = None


@dataclass(frozen=True)
class Speeds:
    """How fast each client is: seconds of an order whatever its steps, and of a step, each of shape [clients].

    They are those of plain steps, unless they were measured: then they are taken as they are, whatever an order does.
    """

    seconds_per_order: NDArray[np.float64] | float = 0.0
    seconds_per_step: NDArray[np.float64] | float = 0.0
    labels: Sequence[str] | None = None
    measured: bool = False

    @classmethod
    def per(cls, per: Per, seconds: NDArray[np.float64] | float, *, measured: bool = False) -> Speeds:
        """Speeds whose seconds are counted per order or per step."""
        if per == "order":
            return cls(seconds_per_order=seconds, measured=measured)
        return cls(seconds_per_step=seconds, measured=measured)


Builder = Callable[..., Devices]


def _options_of_every_kind(
    *,
    startup: Annotated[float, Param("seconds before an order's work starts", ge=0)] = 0.0,
    jitter: Annotated[float, Param("standard deviation of an order's work, as a share of it", ge=0)] = 0.0,
    download_bytes_per_second: Annotated[float | None, Param("bandwidth down; unset: no transfer time", gt=0)] = None,
    upload_bytes_per_second: Annotated[float | None, Param("bandwidth up; unset: no transfer time", gt=0)] = None,
    dropout: Annotated[float, Param("probability that a device goes away during an order", ge=0, lt=1)] = 0.0,
    away: Annotated[float, Param("mean seconds until a device that went away is back", ge=0)] = 60.0,
) -> dict[str, Any]:
    """The parameters of `Devices` that do not depend on the kind."""
    return {
        "startup_seconds": startup,
        "jitter": jitter,
        "download_bytes_per_second": math.inf if download_bytes_per_second is None else download_bytes_per_second,
        "upload_bytes_per_second": math.inf if upload_bytes_per_second is None else upload_bytes_per_second,
        "dropout": dropout,
        "away_seconds": away,
    }


def kind(speeds: Callable[..., Speeds], **defaults: Any) -> Builder:
    """A builder of devices: the options of `speeds` and of every kind, the latter with other defaults if given.

    The builder's signature names all options, so that :mod:`fedmtl.components` reads them as it does for any component.
    """
    shared = inspect.signature(_options_of_every_kind).parameters
    own = [p for p in inspect.signature(speeds).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]

    def build(world: World, **options: Any) -> Devices:
        common = {name: options.pop(name, defaults.get(name, p.default)) for name, p in shared.items()}
        found = speeds(world, **options)
        return Devices(
            world.clients,
            world.seed,
            seconds_per_order=found.seconds_per_order,
            seconds_per_step=found.seconds_per_step,
            labels=found.labels,
            measured=found.measured,
            **_options_of_every_kind(**common),
        )

    first = inspect.Parameter("world", inspect.Parameter.POSITIONAL_ONLY)
    rest = [p.replace(default=defaults.get(p.name, p.default)) for p in shared.values()]
    build.__signature__ = inspect.Signature([first, *own, *rest])  # type: ignore[attr-defined]
    hints = get_type_hints(_options_of_every_kind, include_extras=True) | get_type_hints(speeds, include_extras=True)
    build.__annotations__ = hints | {"return": Devices}
    build.__doc__ = speeds.__doc__
    build.__name__ = build.__qualname__ = speeds.__name__
    return build
