"""The orders that are out, the updates that wait, and the base vectors that both still need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from fedmtl.protocol import GlobalModel, JobKey, TrainSettings, Update
from fedmtl.state import kept_update, update_state
from strategies.core.update_checks import Asked


class Jobs:
    """Follows every job from its order to its end: applied, turned down, or lost.

    Parameters
    ----------
    needs_bases
        Whether the vectors that jobs start from are kept until their ends.
    needs_statistics
        Whether at least their floating-point buffers are.

    Examples
    --------
    A job from its order to its end:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.jobs import Jobs
    >>> jobs = Jobs(needs_bases=True)
    >>> jobs.give(7, toy_model([0.0, 1.0]), steps=2, settings=TrainSettings())
    0
    >>> jobs.busy(7), dict(jobs.bases)
    (True, {0: tensor([0., 1.])})
    >>> jobs.stray(toy_update(7, job=1))
    'never asked for'
    >>> jobs.keep(toy_update(7))
    >>> jobs.settle(jobs.take([(7, 0)]))
    >>> jobs.busy(7), dict(jobs.bases)
    (False, {})
    """

    def __init__(self, needs_bases: bool, needs_statistics: bool = False) -> None:
        self._bases = Bases(needs_bases)
        self._statistics = Bases(needs_statistics and not needs_bases)  # which the bases hold as well
        self._next: dict[int, int] = {}  # each client's next job
        self._out: dict[int, Asked] = {}
        self._waiting: dict[JobKey, Update] = {}

    @property
    def begun(self) -> bool:
        """Whether any order was given."""
        return bool(self._next)

    @property
    def waiting(self) -> Collection[Update]:
        """The updates that were received, and are neither applied nor turned down so far."""
        return self._waiting.values()

    @property
    def bases(self) -> Mapping[int, Tensor]:
        """The vectors that jobs started from, by version, where they are kept."""
        return self._bases.vectors

    @property
    def statistics(self) -> Mapping[int, Tensor]:
        """Of the versions that jobs started from the floating-point buffers, where these are kept and the bases not."""
        return self._statistics.vectors

    def busy(self, client: int) -> bool:
        """Whether the client has an order."""
        return client in self._out

    @property
    def out(self) -> Collection[int]:
        """The clients that have an order."""
        return self._out.keys()

    def give(
        self,
        client: int,
        model: GlobalModel,
        steps: int | None,
        settings: TrainSettings,
        limits: tuple[float, float] | None = None,
    ) -> int:
        """The client, which is not busy, is given an order; returns the job's number.

        `limits` are the largest learning rate and momentum that it may train with; those of the settings, if not given.
        """
        job = self._next.get(client, 0)
        self._next[client] = job + 1
        limits = limits or (settings.learning_rate, settings.momentum)
        steps = settings.steps if steps is None else steps
        self._out[client] = Asked(job, model.version, steps, settings.epochs, settings.batch_size, *limits)
        self._bases.hold(model.version, model.vector)
        if self._statistics.needed:
            held = self._statistics.vectors.get(model.version)
            # A copy, since a view would keep the whole vector alive.
            self._statistics.hold(model.version, model.vector[model.layout.buffers].clone() if held is None else held)
        return job

    def asked(self, update: Update) -> Asked | None:
        """What the update answers; None if it answers no order that is out."""
        asked = self._out.get(update.client)
        return None if asked is None or asked.job != update.job else asked

    def stray(self, update: Update) -> str:
        """Why an update answers no order that is out."""
        return "duplicate or given up" if 0 <= update.job < self._next.get(update.client, 0) else "never asked for"

    def keep(self, update: Update) -> None:
        """The update answers the client's order, and waits."""
        del self._out[update.client]
        self._waiting[update.key] = update

    def lose(self, client: int) -> None:
        """The client's order, if it has one, is at its end without an update."""
        if (asked := self._out.pop(client, None)) is not None:
            self._release(asked.version)

    def take(self, keys: Iterable[JobKey]) -> tuple[Update, ...]:
        """These updates wait no longer; `settle` follows."""
        return tuple(self._waiting.pop(key) for key in keys)

    def put_back(self, updates: Iterable[Update]) -> None:
        """These updates were taken, and wait again."""
        self._waiting.update((update.key, update) for update in updates)

    def settle(self, updates: Iterable[Update]) -> None:
        """The jobs of these updates are at their ends."""
        for update in updates:
            self._release(update.base_version)

    def _release(self, version: int) -> None:
        self._bases.release(version)
        self._statistics.release(version)

    def state_dict(self) -> dict[str, Any]:
        """Orders, updates and base vectors."""
        return {
            "next_job": list(self._next.items()),
            "in_flight": [[client, *asked] for client, asked in self._out.items()],
            "received": [update_state(update) for update in self._waiting.values()],
            "bases": self._bases.state_dict(),
            "statistics": self._statistics.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._next = {int(client): int(job) for client, job in state["next_job"]}
        self._out = {int(client): _asked(*asked) for client, *asked in state["in_flight"]}
        received = [kept_update(entry) for entry in state["received"]]
        self._waiting = {update.key: update for update in received}
        self._bases.load_state_dict(state["bases"])
        self._statistics.load_state_dict(state["statistics"])


def _asked(
    job: int, version: int, steps: int | None, epochs: int, batch_size: int, rate: float, momentum: float
) -> Asked:
    counts = int(job), int(version), None if steps is None else int(steps), int(epochs), int(batch_size)
    return Asked(*counts, float(rate), float(momentum))


class Bases:
    """Counts, for each version, the orders in flight and received updates that started from it, and keeps its vector.

    Parameters
    ----------
    needed
        Whether vectors are kept at all; without, every operation does nothing.

    Attributes
    ----------
    vectors
        The vectors by version.

    Examples
    --------
    Two orders start from version 0; its vector is kept until both are settled.

    >>> import torch
    >>> from strategies.core.jobs import Bases
    >>> bases = Bases(needed=True)
    >>> for _ in range(2):
    ...     bases.hold(0, torch.zeros(2))
    >>> bases.release(0)
    >>> bases.vectors
    {0: tensor([0., 0.])}
    >>> bases.release(0)
    >>> bases.vectors
    {}
    """

    def __init__(self, needed: bool) -> None:
        self.needed = needed
        self.vectors: dict[int, Tensor] = {}
        self._holders: dict[int, int] = {}

    def hold(self, version: int, vector: Tensor) -> None:
        """One more order starts from this version."""
        if self.needed:
            self.vectors[version] = vector
            self._holders[version] = self._holders.get(version, 0) + 1

    def release(self, version: int) -> None:
        """One order or update that started from this version is settled."""
        if not self.needed:
            return
        self._holders[version] -= 1
        if self._holders[version] == 0:
            del self._holders[version], self.vectors[version]

    def state_dict(self) -> dict[str, Any]:
        """Versions, holders and vectors."""
        return {
            "versions": list(self.vectors),
            "holders": [self._holders[version] for version in self.vectors],
            "vectors": list(self.vectors.values()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.vectors = dict(zip(map(int, state["versions"]), state["vectors"], strict=True))
        self._holders = dict(zip(map(int, state["versions"]), map(int, state["holders"]), strict=True))
