"""Weightings by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fedmtl.components import Param
from strategies.core.kinds import Weighting
from strategies.weightings import (
    Agreement,
    DataSize,
    Discounted,
    KAFLWeights,
    LocalSteps,
    Normalised,
    ShareOfAll,
    Uniform,
)
from strategies.weightings.fedqs_options import fedqs_weights
from strategies.weightings.options import StalenessFunction, staleness_function


def uniform() -> Weighting:
    """Every update counts the same."""
    return Uniform()


def data_size() -> Weighting:
    """An update counts as much as its client has examples."""
    return DataSize()


def local_steps() -> Weighting:
    """An update counts as much as its client took steps (FedQueue)."""
    return LocalSteps()


def staleness(
    base: Weighting,
    *,
    function: StalenessFunction = "polynomial",
    a: Annotated[float, Param("exponent, or slope of the hinge", ge=0)] = 0.5,
    b: Annotated[float, Param("staleness up to which the hinge is 1", ge=0)] = 4.0,
    factor: Annotated[float, Param("weight of a fresh update, times its base weight", gt=0, le=1)] = 1.0,
    relative: Annotated[bool, Param("divide by the value at the mean staleness")] = False,
) -> Weighting:
    """Stale updates count less."""
    return Discounted(base, staleness_function(function, a, b), factor, relative=relative)


def share_of_all(
    base: Weighting, *, by: Annotated[Literal["clients", "examples"], Param("what the share is of")] = "clients"
) -> Weighting:
    """Weights against all clients (FedCompass's 1/m) and not against the updates at hand."""
    return ShareOfAll(base, by)


def normalised(
    base: Weighting, *, mu: Annotated[float, Param("factor of the clients' proximal term", ge=0)] = 0.0
) -> Weighting:
    """Clients that did more local work do not pull harder for it (FedNova)."""
    return Normalised(base, mu)


def kafl(base: Weighting) -> Weighting:
    """Rare clients and models near the global one count more (KAFL)."""
    return KAFLWeights(base)


def agreement(*, floor: Annotated[float, Param("least agreement of an update", gt=0, le=1)] = 0.1) -> Weighting:
    """Updates that agree with the server's movement count more (FedAC)."""
    return Agreement(floor)


WEIGHTINGS: Mapping[str, Callable[..., Weighting]] = {
    "uniform": uniform,
    "data-size": data_size,
    "local-steps": local_steps,
    "share-of-all": share_of_all,
    "staleness": staleness,
    "normalised": normalised,
    "fedqs": fedqs_weights,
    "kafl": kafl,
    "agreement": agreement,
}
