"""A toy world for strategies: a virtual clock, clients that solve a quadratic, drop out, and send rubbish.

Long because the toy clients do what real ones may: lie, repeat themselves, die and come back.
"""

from __future__ import annotations

import functools
import heapq
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from clients.policies import client_half
from clients.policies.base import ClassAccuracy
from clients.sending import send_compressed
from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.protocol import (
    Aggregation,
    Arrival,
    Deadline,
    Event,
    GlobalModel,
    JobKey,
    Joined,
    Lost,
    Rejection,
    TrainOrder,
    Update,
)
from fedmtl.randomness import derive_seed, torch_generator
from fedmtl.state import join, order_from_state, order_state, split
from fedmtl.toy import toy_layout, toy_update
from strategies.core.fleet import Fleet
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy

LAYOUT = toy_layout(4, heads=(2, 2), buffers=1)
_ARRIVAL, _LOST, _JOINED = 0, 1, 2


@functools.cache
def _aim(client: int) -> Tensor:
    return torch.randn(LAYOUT.size, generator=torch_generator(0, "aim", client))


def start_model(version: int = 0) -> GlobalModel:
    return GlobalModel(version, torch.linspace(-1.0, 1.0, LAYOUT.size), LAYOUT)


def make_update(client: int = 0, job: int = 0, version: int = 0, **fields: Any) -> Update:
    """An update as a client would send it; `fields` replace what it says."""
    delta = torch.randn(LAYOUT.size, generator=torch_generator(0, "delta", client, job))
    values = {"delta": delta, "examples": 10 + client, "steps": 2, "tasks": (0, 1)} | fields
    return toy_update(client, base_version=version, job=job, **values)


def fedqs_terms(*, client_type: str = "", similarity: float | None = None, feedback: bool = False) -> dict[str, float]:
    """What a client of FedQS says of itself: a type, a measure and a bit, each absent where there is none."""
    bit = 1.0 if feedback else None
    said = {"client_type": TYPE_NUMBERS.get(client_type), "similarity": similarity, "feedback": bit}
    return {name: value for name, value in said.items() if value is not None}


@dataclass
class Quirks:
    """What goes wrong, as functions of client and job; nothing by default."""

    outage: Callable[[int, int], tuple[float, float | None] | None] = lambda client, job: None
    fault: Callable[[int, int], str] = lambda client, job: ""
    tasks: Callable[[int], tuple[int, ...]] = lambda client: (0, 1)
    aim: Callable[[int], int] = lambda client: client
    """Whose point it is that a client pulls towards."""
    stroll: Callable[[int, int], tuple[float, float | None] | None] = lambda client, job: None
    """As an outage, but after the job was delivered: the client waits, or has its next order, when it goes away."""
    newcomers: Sequence[float] = ()
    """When clients that nobody knew join; they have the numbers from the fleet's size on."""


class ToyFleet(Fleet):
    """Clients that pull the model towards a point of their own, and answer after a given time.

    Usual work is two steps; an order of so many steps takes proportionally longer.
    """

    simulated = True

    def __init__(self, count: int, duration: Callable[[int, int], float], quirks: Quirks | None = None) -> None:
        self.count = count
        self.duration = duration
        self.quirks = quirks or Quirks()
        self.time = 0.0
        self.sequence = 0
        self.heap: list[tuple[float, int, int, int, int]] = []
        self.pending: dict[JobKey, tuple[TrainOrder, Mapping[str, Any], float]] = {}
        self.states: dict[int, dict[str, Any]] = {}
        self.extra: list[list[int]] = []  # updates that nobody asked for, to be sent next
        self.away: set[int] = set()
        self.on_outcome_known: Callable[[Update], None] | None = None
        self.made: dict[JobKey, Update] = {}  # updates of jobs in flight that were told of
        for client, time in enumerate(self.quirks.newcomers, start=count):
            self.away.add(client)
            self._push(time, _JOINED, client, 0)

    def clients(self) -> Sequence[int]:
        return range(self.count)

    def now(self) -> float:
        return self.time

    def train_at_once(self, on_outcome_known: Callable[[Update], None]) -> None:
        self.on_outcome_known = on_outcome_known

    def send(self, orders: Sequence[TrainOrder]) -> None:
        for order in orders:
            client, job = order.client, order.job
            assert client not in self.away, "an order for a client that is away"
            if self._absent(client, job, self.quirks.outage(client, job)):
                continue
            observed = client_half(order.policy).observe(order, self.states.setdefault(client, {}))
            self.pending[order.key] = (order, observed, self.time)
            steps = order.steps or 2
            self._push(self.time + self.duration(client, job) * steps / 2, _ARRIVAL, client, job)
            self._show_outcome(order.key)

    def next_event(self, until: float | None) -> Event | None:
        if self.extra:
            return Arrival(self.time, make_update(*self.extra.pop()))
        while self.heap and (until is None or self.heap[0][0] <= until):
            self.time, kind, _, client, job = heapq.heappop(self.heap)
            if kind == _LOST and client not in self.away:
                self.away.add(client)
                for key in [key for key in self.pending if key.client == client]:
                    del self.pending[key]
                    self.made.pop(key, None)
                return Lost(self.time, client, "it went away")
            if kind == _JOINED and client in self.away:
                self.away.discard(client)
                return Joined(self.time, client)
            if kind == _ARRIVAL and (client, job) in self.pending:
                self._absent(client, job, self.quirks.stroll(client, job))
                return Arrival(self.time, self._train(JobKey(client, job)))
        if until is None:
            return None
        self.time = max(self.time, until)
        return Deadline(self.time)

    def _absent(self, client: int, job: int, plan: tuple[float, float | None] | None) -> bool:
        """Plan the client's absence, if there is one: after how long it goes, and how long it stays away."""
        if plan is None:
            return False
        self._push(self.time + plan[0], _LOST, client, job)
        if plan[1] is not None:
            self._push(self.time + plan[0] + plan[1], _JOINED, client, job)
        return True

    def _show_outcome(self, key: JobKey) -> None:
        if self.on_outcome_known is not None:
            self.made[key] = self._make(key)
            self.on_outcome_known(self.made[key])

    def _train(self, key: JobKey) -> Update:
        update = self.made.pop(key) if key in self.made else self._make(key)
        order = self.pending.pop(key)[0]
        self._send_more(update, self.quirks.fault(key.client, key.job))
        update.arrived_at = self.time
        client_half(order.policy).conclude(order, update, self.states.setdefault(key.client, {}))
        send_compressed(order, update, self.states[key.client])
        return update

    def _make(self, key: JobKey) -> Update:
        order, observed, sent = self.pending[key]
        draw = derive_seed(0, "accuracy", key.client)
        accuracy = ClassAccuracy((draw % 21, 10), (20, 20))
        half = client_half(order.policy)
        plan = half.plan(order, observed, lambda: accuracy)
        aim, base = _aim(self.quirks.aim(key.client)), order.base.vector
        start = base if plan.start is None else plan.start
        rate = plan.settings.learning_rate * (1.0 + plan.settings.momentum) / (1.0 + plan.settings.proximal)
        delta = rate * (aim - start) + (start - base)
        if plan.correction is not None:
            delta -= plan.settings.learning_rate * (order.steps or 2) * plan.correction
        update = Update(
            key.client,
            key.job,
            order.base.version,
            delta,
            examples=10 + key.client,
            steps=order.steps or 2,
            tasks=self.quirks.tasks(key.client),
            learning_rate=plan.settings.learning_rate,
            momentum=plan.settings.momentum,
            terms=plan.terms,
            dispatched_at=sent,
        )
        if (report := half.report(order, observed, plan, update, [torch.tensor([0.5, 1.5])])) is not None:
            update.terms, update.vectors = {**plan.terms, **report.terms}, report.vectors
        self._spoil(update, self.quirks.fault(key.client, key.job))
        return update

    def _spoil(self, update: Update, fault: str) -> None:
        if fault == "nan":
            update.delta[3] = float("nan")
        elif fault == "length":
            update.delta = update.delta[:-1]
        elif fault == "version":
            update.base_version += 1
        elif fault == "failure":
            update.failure = "the loss is nan"
        elif fault == "similarity":
            update.terms = {**update.terms, "similarity": float("nan")}

    def _send_more(self, update: Update, fault: str) -> None:
        if fault == "duplicate":
            self.extra.append([update.client, update.job, update.base_version])
        elif fault == "stranger":
            self.extra.append([self.count + 100, 0, 0])

    def _push(self, time: float, kind: int, client: int, job: int) -> None:
        heapq.heappush(self.heap, (time, kind, self.sequence, client, job))
        self.sequence += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "time": self.time,
            "sequence": self.sequence,
            "heap": [list(entry) for entry in self.heap],
            "pending": [[order_state(o), dict(observed), at] for o, observed, at in self.pending.values()],
            "states": [[client, state] for client, state in self.states.items()],
            "extra": self.extra,
            "away": sorted(self.away),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.time, self.sequence = state["time"], state["sequence"]
        self.heap = [tuple(entry) for entry in state["heap"]]
        orders = [(order_from_state(o, LAYOUT), observed, at) for o, observed, at in state["pending"]]
        self.pending = {order.key: (order, observed, at) for order, observed, at in orders}
        for key in self.pending:
            self._show_outcome(key)
        self.states = {client: dict(own) for client, own in state["states"]}
        self.extra = [list(entry) for entry in state["extra"]]
        self.away = set(state["away"])


@dataclass
class Trace(Observer):
    """Everything that happened."""

    events: list[Event] = field(default_factory=list)
    aggregations: list[Aggregation] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    vectors: list[Tensor] = field(default_factory=list)
    check: Callable[[Loop], None] = lambda loop: None

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.aggregations.append(aggregation)
        self.vectors.append(loop.strategy.model.vector)

    def on_rejection(self, loop: Loop, rejection: Rejection) -> None:
        self.rejections.append(rejection)

    def after_event(self, loop: Loop, event: Event) -> None:
        self.events.append(event)
        self.check(loop)

    @property
    def received(self) -> list[Update]:
        return [event.update for event in self.events if isinstance(event, Arrival)]


def through_json(state: Any) -> Any:
    """A state as a checkpoint gives it back."""
    plain, tensors = split(state)
    return join(json.loads(json.dumps(plain)), {name: tensor.clone() for name, tensor in tensors.items()})


class Toys:
    """The toy world's parts, handed to tests by the fixture `toys`."""

    LAYOUT = LAYOUT
    aim = staticmethod(_aim)
    Fleet = ToyFleet
    Quirks = Quirks
    Trace = Trace
    start_model = staticmethod(start_model)
    make_update = staticmethod(make_update)
    fedqs_terms = staticmethod(fedqs_terms)
    through_json = staticmethod(through_json)

    @staticmethod
    def ready(strategy: Strategy, seed: int = 0) -> Strategy:
        """The strategy, with the toy model."""
        strategy.initialise(start_model(), seed=seed)
        return strategy

    @staticmethod
    def run(
        strategy: Strategy,
        fleet: ToyFleet,
        *,
        versions: int | None = None,
        events: int = 100_000,
        cut: bool = False,
        check: Callable[[Loop], None] = lambda loop: None,
    ) -> tuple[Loop, Trace]:
        """Run to so many versions or events, whichever comes first; `cut` is an interruption, not an end, there."""
        strategy.initialise(start_model())
        trace = Trace(check=check)
        loop = Loop(strategy, fleet, [trace])

        def stop(loop: Loop) -> str | None:
            if versions is not None and loop.strategy.model.version >= versions:
                return "versions"
            if len(trace.events) < events:
                return None
            if cut:
                loop.interrupt()
                return None
            return "events"

        loop.run(stop)
        return loop, trace


@pytest.fixture(scope="session")
def toys() -> type[Toys]:
    return Toys
