"""Schedulers by their configuration names, for free compositions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from strategies.aggregators.reference_options import BUFFERS
from strategies.core.kinds import Scheduler
from strategies.schedulers import Asynchronous, Compass, LagTolerant, Pooled, Queued, Synchronous, Tiered
from strategies.schedulers.lag_tolerant import Deprecation
from strategies.schedulers.options import (
    BufferRule,
    BufferSize,
    ClientsPerRound,
    Clock,
    Concurrency,
    FirstJob,
    FlushSeconds,
    Late,
    LeastSteps,
    MaxBuffer,
    MostSteps,
    OverCommit,
    RoundSeconds,
    Safety,
    Smoothing,
    StepBudget,
    Tick,
    TickOrder,
    Timeout,
    Timer,
    Tolerance,
)
from strategies.selectors import HeteroSelect, OortSelector, Selector
from strategies.selectors.paced import PacedSelector

SelectionName = Literal["random", "oort", "heteroselect", "curriculum"]
Selection = Annotated[
    SelectionName, Param("who is next of those who are idle: by chance, by a score, or from a pool that opens")
]


def synchronous(
    *,
    clients_per_round: ClientsPerRound = None,
    over_commit: OverCommit = 1.0,
    timeout: Timeout = None,
    late: Late = "reject",
    step_budget: StepBudget = None,
    selection: Selection = "random",
) -> Scheduler:
    """Rounds: the server waits for those that it asked."""
    refuse_pool_of_all(selection, clients_per_round, "clients_per_round")
    return Synchronous(
        clients_per_round,
        selector=selector_of(selection),
        over_commit=over_commit,
        timeout=timeout,
        late=late,
        step_budget=step_budget,
    )


def asynchronous(*, concurrency: Concurrency = None) -> Scheduler:
    """Every arrival is a server step."""
    return Asynchronous(concurrency)


def buffered(
    *,
    buffer_size: BufferSize = 10,
    concurrency: Concurrency = None,
    max_staleness: Annotated[int | None, Param("staler updates are rejected; none if not set", ge=0)] = None,
    buffer: BufferRule = "drain",
    clock: Clock = "event",
    tick: Tick = 1.0,
    max_buffer: MaxBuffer = None,
    flush_seconds: FlushSeconds = None,
    tick_order: TickOrder = "sent",
    selection: Selection = "random",
) -> Scheduler:
    """K updates make a server step."""
    refuse_pool_of_all(selection, concurrency, "concurrency")
    return BUFFERS[tick_order](
        buffer_size,
        concurrency=concurrency,
        buffer=buffer,
        clock=clock,
        tick=tick,
        max_size=max_buffer,
        patience=flush_seconds,
        max_staleness=max_staleness,
        selector=selector_of(selection),
    )


def pooled(*, buffer_size: BufferSize = 10, concurrency: Concurrency = None, tick: Tick = 1.0) -> Scheduler:
    """K of the waiting updates, drawn at random, make a server step, at most once per tick (DeFedAvg)."""
    return Pooled(buffer_size, concurrency=concurrency, tick=tick)


def lag_tolerant(
    *,
    buffer_size: BufferSize = 10,
    lag: Annotated[int, Param("versions that a busy client may be behind", ge=0)] = 10,
    deprecated: Annotated[
        Deprecation, Param("what a busy client is given up by: its model's age, or not having been picked")
    ] = "by_version",
    round_limit: Annotated[float | None, Param("longest round, seconds; no limit if not set", gt=0)] = None,
) -> Scheduler:
    """Rounds end with a quota of updates, and busy clients train on for a while (SAFA)."""
    return LagTolerant(buffer_size, lag, round_limit, deprecated)


def tiered(
    *,
    tiers: Annotated[int, Param("how many", ge=1)] = 5,
    clients_per_round: Annotated[int | None, Param("clients of a tier's round; all if not set", ge=1)] = None,
) -> Scheduler:
    """Equally fast clients have rounds of their own (FedAT)."""
    return Tiered(tiers, clients_per_round)


def queued(
    *,
    round_seconds: RoundSeconds = 10.0,
    safety: Safety = 0.0,
    smoothing: Smoothing = 0.5,
    tolerance: Tolerance = 0.2,
    timer: Timer = 1.15,
    first_steps: FirstJob = 20,
    min_steps: LeastSteps = 1,
    max_steps: MostSteps = 200,
) -> Scheduler:
    """Steps are fitted to rounds of a fixed length beside each client's expected wait (FedQueue)."""
    return Queued(
        round_seconds,
        safety=safety,
        smoothing=smoothing,
        tolerance=tolerance,
        timer=timer,
        first_steps=first_steps,
        min_steps=min_steps,
        max_steps=max_steps,
    )


def selector_of(name: SelectionName) -> Selector | None:
    """A new selector with its recipe's defaults; None for chance. The policy `loss-reports` gives it better losses."""
    if name == "curriculum":
        return PacedSelector()
    return None if name == "random" else OortSelector() if name == "oort" else HeteroSelect()


def refuse_pool_of_all(name: SelectionName, count: int | None, key: str) -> None:
    """Refuse a curriculum where all clients are taken.

    Raises
    ------
    ConfigError
        If it is one, and no number of clients is set.
    """
    if name == "curriculum" and count is None:
        raise ConfigError(f"selection = 'curriculum' chooses among clients: set {key}, or use 'random'")


SCHEDULERS: Mapping[str, Callable[..., Scheduler]] = {
    "synchronous": synchronous,
    "asynchronous": asynchronous,
    "buffered": buffered,
    "compass": Compass,
    "pooled": pooled,
    "lag-tolerant": lag_tolerant,
    "tiered": tiered,
    "queued": queued,
}
