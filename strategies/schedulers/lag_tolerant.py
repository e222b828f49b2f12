"""SAFA's scheduler: rounds that end with a quota, and clients that may lag a few rounds behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fedmtl.components import Param
from fedmtl.errors import ConfigError
from fedmtl.protocol import NOTHING, Assignment, Decision, GlobalModel, JobKey, Update
from fedmtl.restoring import number_or_none
from strategies.core.kinds import Scheduler
from strategies.schedulers.options import BufferSize, Deprecated, RoundLimit, limits_nothing


class LagTolerant(Scheduler):
    """Rounds end with a quota of updates, and busy clients train on for a while (SAFA).

    At the start of a round every free client is sent the model; busy ones train on. An update is picked at once if its
    client was not picked in the last round; otherwise it waits, and is picked when the round ends if the quota
    (`buffer_size`) has room, the fastest first. A round ends when the quota is met, when nothing more can arrive, or at
    its time limit; one in which nothing arrived takes no server step. All its updates are aggregated; those that were
    not picked ("undrafted") are marked late, so that they take effect in the next step.

    A busy client whose version is more than `lag` behind when a round starts is deprecated: what it is working on will
    be rejected, and it counts as having been sent the round's model, so that it is deprecated again after as many
    rounds more. (A real client cannot be interrupted; in the paper it starts over at once.) Instead, one may be
    deprecated that was not picked for more than `lag` rounds, counted from its first order or its last deprecation.

    Attributes
    ----------
    deprecated
        The clients that were deprecated when the round that was aggregated last had started.

    Raises
    ------
    ConfigError
        If the quota is below 1.

    Examples
    --------
    Each round ends with one update. After two rounds a client that has trained since the start is given up:

    >>> from fedmtl.toy import toy_update
    >>> from strategies.schedulers import LagTolerant
    >>> scheduler = LagTolerant(buffer_size=1, lag=1)
    >>> orders = scheduler.begin(range(3), now=0.0).assignments
    >>> for client in range(3):
    ...     decision = scheduler.on_update(toy_update(client), now=1.0 + client)
    ...     decision.aggregate, decision.rejected
    ((JobKey(client=0, job=0),), ())
    ((JobKey(client=1, job=0),), ())
    ((), ((JobKey(client=2, job=0), 'deprecated: 2 versions behind, at most 1 allowed'),))
    """

    provides = frozenset({"distinct-clients"})

    def __init__(
        self,
        *,
        buffer_size: BufferSize = 10,
        lag: Annotated[int, Param("versions that a busy client may be behind", ge=0)] = 10,
        deprecated: Deprecated = "by_version",
        round_limit: RoundLimit = None,
    ) -> None:
        if buffer_size < 1:
            raise ConfigError(f"buffer_size = {buffer_size}: at least 1 update must be picked in a round")
        self._quota = buffer_size
        self._lag = lag
        self._limit = round_limit
        self._by_version = deprecated == "by_version"
        self.deprecated: tuple[int, ...] = ()
        self._falling: tuple[int, ...] = ()  # deprecated when the round at hand started
        self._version = 0
        self._due: float | None = None
        self._free: dict[int, None] = {}  # an ordered set
        self._sent: dict[int, int] = {}  # busy client -> version it has, or counts as having, or was picked for
        self._cohorts: dict[int, dict[int, None]] = {}  # that version -> its busy clients
        self._heard: dict[int, int] = {}  # client -> version for which it was picked or deprecated; if that counts
        self._void: set[int] = set()  # busy clients whose updates will be rejected
        self._picked: list[JobKey] = []
        self._undrafted: list[JobKey] = []
        self._before: set[int] = set()  # clients picked in the last round

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Take the first version."""
        self._version = model.version

    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """Orders for the first round, to all clients."""
        self._free = dict.fromkeys(clients)
        return Decision(assignments=self._distribute(now))

    def on_update(self, update: Update, now: float) -> Decision:
        """Pick it, keep it for the round's end, or reject it."""
        client = update.client
        void = client in self._void
        self._release(client)
        self._free[client] = None
        if void:
            behind, allowed = self._version - update.base_version, f"at most {self._lag} allowed"
            what = f"{behind} versions behind" if self._by_version else "not picked for too many rounds"
            reason = f"deprecated: {what}, {allowed}"
            return self._advance(now, ((update.key, reason),))
        (self._undrafted if client in self._before else self._picked).append(update.key)
        return self._advance(now)

    def on_idle(self, client: int, now: float) -> Decision:
        """It is sent the model when the next round starts."""
        self._release(client)
        self._free[client] = None
        return self._advance(now)

    def on_lost(self, client: int, now: float) -> Decision:
        """The round goes on without it; what it delivered counts."""
        self._release(client)
        self._free.pop(client, None)
        return self._advance(now)

    def next_deadline(self) -> float | None:
        """The round's time limit, if anything can arrive before."""
        return self._due if len(self._sent) > len(self._void) else None

    def on_deadline(self, now: float) -> Decision:
        """The round is over."""
        return self._end_round(now, "deadline")

    def _release(self, client: int) -> None:
        """The client is not busy any more."""
        version = self._sent.pop(client, None)
        self._void.discard(client)
        if version is not None:
            del self._cohorts[version][client]
            if not self._cohorts[version]:
                del self._cohorts[version]

    def _advance(self, now: float, rejected: tuple[tuple[JobKey, str], ...] = ()) -> Decision:
        if len(self._picked) >= self._quota:
            return self._end_round(now, "full", rejected)
        if len(self._sent) == len(self._void):
            return self._end_round(now, "all", rejected)
        return Decision(rejected=rejected) if rejected else NOTHING

    def _end_round(self, now: float, trigger: str, rejected: tuple[tuple[JobKey, str], ...] = ()) -> Decision:
        room = self._quota - len(self._picked)
        picked = self._picked + self._undrafted[:room]
        late = self._undrafted[room:]
        self._picked, self._undrafted = [], []
        if picked:
            self._version += 1
            self._before = {key.client for key in picked}
            if not self._by_version:
                self._heard |= dict.fromkeys(self._before, self._version)
            self.deprecated, self._falling = self._falling, self._deprecate()
        return Decision(
            (*picked, *late),
            trigger if picked else "",
            frozenset(late),
            rejected=rejected,
            assignments=self._distribute(now),
        )

    def _deprecate(self) -> tuple[int, ...]:
        """The busy clients that have fallen too far behind."""
        too_old = [version for version in self._cohorts if version < self._version - self._lag]
        fallen = [client for version in too_old for client in self._cohorts.pop(version)]
        self._void.update(fallen)
        for client in fallen:
            self._sent[client] = self._version
            self._cohorts.setdefault(self._version, {})[client] = None
        if not self._by_version:
            self._heard |= dict.fromkeys(fallen, self._version)
        return tuple(fallen)

    def _distribute(self, now: float) -> tuple[Assignment, ...]:
        assignments = tuple(Assignment(client) for client in self._free)
        for client in self._free:
            since = self._version if self._by_version else self._heard.setdefault(client, self._version)
            self._sent[client] = since
            self._cohorts.setdefault(since, {})[client] = None
        self._free = {}
        self._due = None if self._limit is None else now + self._limit
        return assignments

    def remarks(self, clients: int) -> Sequence[str]:
        """A quota that no round meets."""
        return limits_nothing("buffer_size", self._quota, clients)

    def state_dict(self) -> dict[str, Any]:
        """Clients, the round and the version."""
        return {
            "deprecated": list(self.deprecated),
            "falling": list(self._falling),
            "version": self._version,
            "due": self._due,
            "free": list(self._free),
            "cohorts": [[version, list(clients)] for version, clients in self._cohorts.items()],
            "heard": [list(entry) for entry in self._heard.items()],
            "void": sorted(self._void),
            "picked": [list(key) for key in self._picked],
            "undrafted": [list(key) for key in self._undrafted],
            "before": sorted(self._before),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.deprecated, self._falling = tuple(map(int, state["deprecated"])), tuple(map(int, state["falling"]))
        self._version, self._due = int(state["version"]), number_or_none(state["due"])
        self._free = dict.fromkeys(map(int, state["free"]))
        self._cohorts = {int(version): dict.fromkeys(map(int, clients)) for version, clients in state["cohorts"]}
        self._sent = {client: version for version, clients in self._cohorts.items() for client in clients}
        self._heard = {int(client): int(version) for client, version in state["heard"]}
        self._void = set(map(int, state["void"]))
        self._picked = [JobKey(int(client), int(job)) for client, job in state["picked"]]
        self._undrafted = [JobKey(int(client), int(job)) for client, job in state["undrafted"]]
        self._before = set(map(int, state["before"]))
