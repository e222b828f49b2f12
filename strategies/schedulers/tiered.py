"""FedAT's scheduler: clients in tiers by their speed, synchronous inside a tier, asynchronous across tiers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.protocol import Decision, GlobalModel, Update
from fedmtl.randomness import derive_seed
from strategies.core.kinds import Scheduler
from strategies.core.part import Part
from strategies.schedulers.options import ClientsOfTier, limits_nothing
from strategies.schedulers.synchronous import Synchronous


class Tiered(Scheduler):
    """Equally fast clients have rounds of their own (FedAT).

    The first round is everybody's and measures how long each client takes. By that the clients that answered are cut
    into tiers of equal size (up to one), the fastest first, ties by their numbers; there are never more tiers than
    such clients. Others, and those that come later, are in the slowest tier. Nobody changes tiers.

    Raises
    ------
    ConfigError
        If a number is below 1.

    Examples
    --------
    Everybody's first round measures; then the two fast clients have rounds of their own.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.schedulers import Tiered
    >>> scheduler = Tiered(tiers=2)
    >>> scheduler.prepare(toy_model([0.0]), seed=0)
    >>> orders = scheduler.begin(range(4), now=0.0).assignments
    >>> for client, seconds in enumerate([8.0, 1.0, 9.0, 2.0]):
    ...     decision = scheduler.on_update(toy_update(client, arrived_at=seconds), now=seconds)
    >>> [scheduler.tier_of(client) for client in range(4)]
    [1, 0, 1, 0]
    >>> for client in (3, 1):
    ...     decision = scheduler.on_update(toy_update(client, job=1, base_version=1), now=11.0)
    >>> decision.aggregate
    (JobKey(client=1, job=1), JobKey(client=3, job=1))
    """

    provides = frozenset({"every-update", "distinct-clients"})

    def __init__(
        self, *, tiers: Annotated[int, Param("how many", ge=1)] = 5, clients_per_round: ClientsOfTier = None
    ) -> None:
        if tiers < 1:
            raise ConfigError(f"tiers = {tiers}: there must be at least 1")
        self._most = tiers
        self._per_round = clients_per_round
        self._tiers = [Synchronous()]  # at first one of everybody
        self._formed = False
        self._tier_of: dict[int, int] = {}
        self._seconds: dict[int, float] = {}  # measured in the first round
        self._start: tuple[GlobalModel, int] | None = None

    def held_parts(self) -> Iterator[tuple[str, Part]]:
        """None: the tiers' schedulers are made when their members are known, and each draws from a seed of its own."""
        return iter(())

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the seed of the draws."""
        self._start = model, seed
        self._tiers[0].prepare(model, seed)

    @property
    def tiers(self) -> int:
        """How many tiers there are; 1 before they are formed."""
        return len(self._tiers)

    def tier_of(self, client: int) -> int:
        """The client's tier, 0 being the fastest."""
        return self._tier_of.get(client, len(self._tiers) - 1)

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """The round of everybody."""
        return self._tiers[0].begin(clients, now)

    def on_update(self, update: Update, now: float) -> Decision:
        """The tier's round goes on."""
        if not self._formed:
            self._seconds[update.client] = update.duration
        return self._form(self._tiers[self.tier_of(update.client)].on_update(update, now), now)

    def on_idle(self, client: int, now: float) -> Decision:
        """The tier's round goes on."""
        return self._form(self._tiers[self.tier_of(client)].on_idle(client, now), now)

    def on_lost(self, client: int, now: float) -> Decision:
        """The tier's round goes on without it."""
        return self._form(self._tiers[self.tier_of(client)].on_lost(client, now), now)

    def _form(self, decision: Decision, now: float) -> Decision:
        """Form the tiers when the round of everybody is over."""
        if self._formed or not decision.aggregate:
            return decision
        self._formed = True
        measured = sorted(self._seconds, key=lambda client: (self._seconds[client], client))
        count = min(self._most, len(measured))
        self._tier_of = {client: place * count // len(measured) for place, client in enumerate(measured)}
        self._seconds = {}
        self._tiers = self._new_tiers(count)
        members: list[list[int]] = [[] for _ in self._tiers]
        for assignment in decision.assignments:
            members[self.tier_of(assignment.client)].append(assignment.client)
        first = [tier.begin(clients, now) for tier, clients in zip(self._tiers, members, strict=True)]
        assignments = tuple(assignment for round_ in first for assignment in round_.assignments)
        return Decision(decision.aggregate, decision.trigger, assignments=assignments)

    def _new_tiers(self, count: int) -> list[Synchronous]:
        assert self._start is not None, "prepare comes first"
        model, seed = self._start
        tiers = [Synchronous(clients_per_round=self._per_round) for _ in range(count)]
        for number, tier in enumerate(tiers):
            tier.prepare(model, derive_seed(seed, "tier", number))
        return tiers

    def updates_per_version(self, clients: int) -> int:
        """One from everybody before the tiers are formed."""
        return clients

    def remarks(self, clients: int) -> Sequence[str]:
        """More tiers, or larger rounds, than there are clients for."""
        more_tiers = limits_nothing("tiers", self._most, clients)
        return (*more_tiers, *limits_nothing("clients_per_round", self._per_round, clients))

    def state_dict(self) -> dict[str, Any]:
        """The tiers and their rounds."""
        return {
            "formed": self._formed,
            "tiers": [tier.state_dict() for tier in self._tiers],
            "tier_of": list(self._tier_of.items()),
            "seconds": list(self._seconds.items()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._formed = bool(state["formed"])
        if self._formed:
            self._tiers = self._new_tiers(len(state["tiers"]))
        for tier, saved in zip(self._tiers, state["tiers"], strict=True):
            tier.load_state_dict(saved)
        self._tier_of = {int(client): int(tier) for client, tier in state["tier_of"]}
        self._seconds = {int(client): float(seconds) for client, seconds in state["seconds"]}
