"""A strategy: scheduler x aggregator x client policy x task weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fedmtl.compression import CompressionError, Compressor
from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.protocol import (
    NOTHING,
    Aggregation,
    Arrival,
    Assignment,
    Compression,
    Deadline,
    Decision,
    Event,
    GlobalModel,
    JobKey,
    Joined,
    Lost,
    Rejection,
    TrainOrder,
    TrainSettings,
    Update,
)
from fedmtl.randomness import derive_seed
from fedmtl.state import update_from_state, update_state
from strategies.bases import Bases
from strategies.flower_methods import FlowerMethods
from strategies.ledger import Ledger
from strategies.parts import (
    USUAL,
    Aggregator,
    ClientPolicy,
    Part,
    Scheduler,
    Step,
    TaskWeights,
    parts_within,
    refuse_misfits,
)
from strategies.update_checks import Asked, content_fault


@dataclass(frozen=True, slots=True)
class Reaction:
    """The strategy's answer to an event: the scheduler's decision, and the updates that were turned down."""

    decision: Decision
    rejections: tuple[Rejection, ...] = ()


class Strategy(FlowerMethods):
    """Four parts that together decide everything a server decides.

    A strategy is handed events and returns decisions, models and orders; it knows no clock, network or disk. The loop
    in :mod:`strategies.loop` drives it, over a simulated world or a real one.

    Parameters
    ----------
    scheduler, aggregator, policy, task_weights
        The parts; see :mod:`strategies.parts`.
    name
        What reports call it.

    Raises
    ------
    ConfigError
        If the parts do not go together.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        aggregator: Aggregator,
        policy: ClientPolicy | None = None,
        task_weights: TaskWeights | None = None,
        *,
        name: str = "custom",
    ) -> None:
        self.scheduler = scheduler
        self.task_weights = task_weights or TaskWeights()
        self.aggregator, self.policy = self.task_weights.fit(aggregator, policy or ClientPolicy())
        refuse_misfits(self._parts.values())
        self.name = name
        self.compressor: Compressor | None = None
        self.ledger = Ledger()
        self.settings = TrainSettings()
        self.seed = 0
        self._model: GlobalModel | None = None
        self._bases = Bases(self.aggregator.needs_bases)
        self._next_job: dict[int, int] = {}
        self._in_flight: dict[int, Asked] = {}
        self._received: dict[JobKey, Update] = {}

    def initialise(self, model: GlobalModel, settings: TrainSettings | None = None, seed: int = 0) -> None:
        """Give the strategy the model to start from, and what every order has in common.

        Raises
        ------
        RuntimeError
            If it has given orders: its parts remember a run, and another one needs a new strategy.
        """
        if self._next_job:
            raise RuntimeError(f"strategy {self.name!r} was run before: make a new one for another run")
        self.train_with(settings or TrainSettings())
        self._model = model = self.policy.initial(model, seed)
        self.seed = seed
        for part in self._parts.values():
            part.prepare(model, seed)

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Have every part look at the model and the examples' features, shape [n, ...], before a run.

        Raises
        ------
        ConfigError
            If a part cannot work with them; with the reason.
        """
        for part in self._parts.values():
            for inner in parts_within(part):
                inner.examine(model, features)

    @property
    def only_simulated(self) -> str:
        """Why real clients cannot do what the strategy asks of them; empty if they can."""
        every = (inner for part in self._parts.values() for inner in parts_within(part))
        return next((inner.only_simulated for inner in every if inner.only_simulated), "")

    def train_with(self, settings: TrainSettings) -> None:
        """Take how clients train.

        Raises
        ------
        ConfigError
            If a part does not go with it.
        """
        if settings.tiny_clients == "ref_drop_last":
            refuse_misfits(self._parts.values(), given=USUAL - {"local-steps"})
        self.settings = settings

    def compress(self, compressor: Compressor) -> None:
        """Have clients send compressed updates.

        Raises
        ------
        ConfigError
            If they are compressed already, or a part needs them as they are.
        """
        if self.compressor is not None:
            raise ConfigError(
                f"strategy.name = {self.name!r} compresses updates itself ({self.compressor.name}): "
                "leave compression.name at 'none'"
            )
        refuse_misfits(self._parts.values(), given=USUAL - {"exact-updates"})
        self.compressor = compressor

    def _compression(self, version: int, client: int | None = None) -> Compression | None:
        """How updates that start from a version are compressed, all with the same random numbers; a client's, or any.

        A compressor restores what any other of its name made.
        """
        if self.compressor is None:
            return None
        seed = derive_seed(self.seed, "compression", version)
        own = {} if client is None else self.policy.compression(client, version)
        return Compression(self.compressor.name, {**self.compressor.options, **own}, seed)

    @property
    def _parts(self) -> dict[str, Part]:
        return {
            "scheduler": self.scheduler,
            "aggregator": self.aggregator,
            "policy": self.policy,
            "task_weights": self.task_weights,
        }

    @property
    def model(self) -> GlobalModel:
        """The newest version."""
        if self._model is None:
            raise RuntimeError("the strategy has no model yet: call initialise(model, settings, seed) first")
        return self._model

    @property
    def waiting(self) -> int:
        """Updates that were received and neither applied nor rejected so far."""
        return len(self._received)

    def unsettled(self) -> tuple[Update, ...]:
        """Those updates."""
        return tuple(self._received.values())

    def next_deadline(self) -> float | None:
        """When the scheduler wants to be woken, if it does."""
        return self.scheduler.next_deadline()

    def begin(self, clients: Sequence[int], now: float) -> Reaction:
        """The decision that starts a run."""
        self.ledger.met(clients)
        return Reaction(self.scheduler.begin(clients, now))

    def on_event(self, event: Event) -> Reaction:
        """React to an event: an update is checked and handed to the scheduler, or rejected with the reason."""
        match event:
            case Arrival(time=now, update=update):
                return self._on_arrival(update, now)
            case Deadline(time=now):
                return self._settle(self.scheduler.on_deadline(now), now)
            case Lost(time=now, client=client):
                if (given := self._in_flight.pop(client, None)) is not None:
                    self._bases.release(given.version)
                return self._settle(self.scheduler.on_lost(client, now), now)
            case Joined(time=now, client=client):
                if client in self._in_flight:
                    return Reaction(NOTHING)
                self.ledger.met((client,))
                return self._settle(self.scheduler.on_idle(client, now), now)

    def finish(self, now: float) -> Reaction:
        """The decision that ends a run."""
        return self._settle(self.scheduler.finish(now), now)

    def aggregate(self, decision: Decision, now: float) -> Aggregation:
        """Take the server step that a decision asks for; the new model is in `model`."""
        before = self.model
        updates = tuple(self._received.pop(key) for key in decision.aggregate)
        self.ledger.applied(updates)
        step = Step(before, updates, self._bases.vectors, decision.trigger, decision.late, self.ledger)
        vector, weights = self.aggregator.aggregate(step)
        for update in updates:
            self._bases.release(update.base_version)
        self._model = GlobalModel(before.version + 1, vector, before.layout)
        self.policy.on_weighted(updates, weights)
        self.policy.on_aggregated(before, self._model, updates, self.ledger)
        self.task_weights.on_aggregated(updates, weights, before.layout)
        staleness = tuple(before.version - update.base_version for update in updates)
        return Aggregation(before.version + 1, now, decision.trigger, updates, weights, staleness, decision.late)

    def orders(self, assignments: Iterable[Assignment]) -> list[TrainOrder]:
        """The orders for these assignments, from the newest model."""
        return [self._order(assignment) for assignment in assignments]

    def _order(self, assignment: Assignment) -> TrainOrder:
        client, model = assignment.client, self.model
        if client in self._in_flight:
            raise RuntimeError(f"{type(self.scheduler).__name__} assigned client {client}, which is still training")
        job = self._next_job.get(client, 0)
        self._next_job[client] = job + 1
        self._bases.hold(model.version, model.vector)
        instruction = self.policy.instruct(client, self.settings, model, self.ledger)
        told = instruction.settings
        self._in_flight[client] = Asked(job, model.version, assignment.steps, told.epochs, told.batch_size)
        return TrainOrder(
            client=client,
            job=job,
            base=self.aggregator.model_for(client, model, self.ledger),
            steps=assignment.steps,
            settings=told,
            task_weights=self.task_weights.weights(),
            balancing=self.task_weights.balancing,
            policy=self.policy.name,
            terms=instruction.terms,
            vectors=instruction.vectors,
            seed=derive_seed(self.seed, "job", client, job),
            constants=self.policy.constants,
            compression=self._compression(model.version, client),
            transfers=self.aggregator.transfers(client, model.version, self.ledger),
        )

    def _on_arrival(self, update: Update, now: float) -> Reaction:
        asked = self._in_flight.get(update.client)
        answers = asked is not None and asked.job == update.job
        fault = self._fault(update, asked)
        if answers:
            del self._in_flight[update.client]
        if fault is None:
            update.arrived_version = self.model.version
            self._received[update.key] = update
            self.ledger.received(update)
            return self._settle(self.scheduler.on_update(update, now), now)
        rejection = Rejection(now, update, fault)
        if asked is None or not answers:
            return Reaction(NOTHING, (rejection,))
        self._bases.release(asked.version)
        reaction = self._settle(self.scheduler.on_idle(update.client, now), now)
        return Reaction(reaction.decision, (rejection, *reaction.rejections))

    def _fault(self, update: Update, asked: Asked | None) -> str | None:
        """Why an update must not be applied, or None. Updates come from outside and are not trusted."""
        if asked is None or asked.job != update.job:
            given = self._next_job.get(update.client, 0)
            return "duplicate or given up" if 0 <= update.job < given else "never asked for"
        if update.base_version != asked.version:
            return f"claims version {update.base_version}, was sent {asked.version}"
        if update.failure is not None:
            return update.failure
        if (compression := self._compression(update.base_version)) is not None and self.compressor is not None:
            try:
                update.delta = self.compressor.restore(update.delta, self.model.layout, compression.seed)
            except CompressionError as error:
                return str(error)
        least_steps = 0 if self.settings.tiny_clients == "ref_drop_last" else 1
        fault = content_fault(update, self.model, self.policy.reported, least_steps) or asked.fault(update)
        return fault or self.task_weights.fault(update, self.model.layout)

    def _settle(self, decision: Decision, now: float) -> Reaction:
        rejections = tuple(Rejection(now, self._received.pop(key), reason) for key, reason in decision.rejected)
        for rejection in rejections:
            self._bases.release(rejection.update.base_version)
        return Reaction(decision, rejections)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on to the same bits."""
        return {
            "model": {"version": self.model.version, "vector": self.model.vector},
            "next_job": list(self._next_job.items()),
            "in_flight": [[client, *order] for client, order in self._in_flight.items()],
            "received": [update_state(update) for update in self._received.values()],
            "bases": self._bases.state_dict(),
            "ledger": self.ledger.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; the strategy must be initialised with a model of that layout."""
        self._model = GlobalModel(int(state["model"]["version"]), state["model"]["vector"], self.model.layout)
        self._next_job = {int(client): int(job) for client, job in state["next_job"]}
        self._in_flight = {int(client): Asked(*order) for client, *order in state["in_flight"]}
        received = [update_from_state(entry) for entry in state["received"]]
        self._received = {update.key: update for update in received}
        self._bases.load_state_dict(state["bases"])
        self.ledger.load_state_dict(state["ledger"])
        for name, part in self._parts.items():
            part.load_state_dict(state["parts"][name])
