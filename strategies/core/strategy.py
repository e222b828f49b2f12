"""A strategy: scheduler x aggregator x client policy x task weights.

Long because whatever crosses from one part to another does so here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from fedmtl.balancing.options import refuse_two_bounds
from fedmtl.compression import CompressionError, Compressor
from fedmtl.errors import ConfigError, DivergedError
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
from fedmtl.text import printable
from fedmtl.update_contract import Lengths, form_fault, recordable
from strategies.core.claims import Claims, KnownClaim
from strategies.core.compatibility import refuse_misfits, refuse_rules
from strategies.core.guard import GUARD, Guard
from strategies.core.jobs import Jobs
from strategies.core.kinds import (
    Aggregator,
    ClientPolicy,
    Equal,
    Plain,
    Reaction,
    Rule,
    Scheduler,
    Step,
    TaskWeights,
    Weighting,
)
from strategies.core.ledger import Ledger
from strategies.core.part import USUAL, Part, parts_within, prepare, restore, states_of
from strategies.core.update_checks import Asked, content_fault, is_finite

_log = logging.getLogger(__name__)


class Strategy:
    """Four parts that together decide everything a server decides.

    A strategy is handed events and returns decisions, models and orders; it knows no clock, network or disk. The loop
    in :mod:`strategies.core.loop` drives it, over a simulated world or a real one.

    Parameters
    ----------
    scheduler, aggregator, policy, task_weights
        The parts; see :mod:`strategies.core.kinds`.
    name
        What reports call it.

    Raises
    ------
    ConfigError
        If the parts do not go together.

    Examples
    --------
    FedBuff with a buffer of two:

    >>> from fedmtl.protocol import Arrival
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.schedulers import Buffered
    >>> from strategies.weightings import Uniform
    >>> strategy = Strategy(Buffered(buffer_size=2), GradientAggregator(Uniform()))
    >>> strategy.initialise(toy_model([1.0, 1.0]))
    >>> orders = strategy.orders(strategy.begin([0, 1], now=0.0).decision.assignments)
    >>> reaction = strategy.on_event(Arrival(1.0, toy_update(0, [2.0, 0.0])))
    >>> reaction = strategy.on_event(Arrival(3.0, toy_update(1, [0.0, -4.0])))
    >>> strategy.aggregate(reaction.decision, now=3.0).weights
    (0.5, 0.5)
    >>> strategy.model.version, strategy.model.vector
    (1, tensor([ 2., -1.]))
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
        self.task_weights = task_weights or Equal()
        self.aggregator, self.policy = self.task_weights.adjust(aggregator, policy or Plain())
        refuse_misfits(self._parts.values())
        self.name = name
        self._notice = ""
        self.expect(None)
        self.compressor: Compressor | None = None
        self.ledger = Ledger(*(part.follows for part in self.every_part))
        self.settings = TrainSettings()
        self.seed = self.model_seed = 0
        self._model: GlobalModel | None = None
        self._jobs = Jobs(self._needs_bases)
        self.guard = Guard()
        self._guard_factor: float | None = None
        self._claims: Claims | None = None

    def initialise(
        self, model: GlobalModel, settings: TrainSettings | None = None, seed: int = 0, model_seed: int | None = None
    ) -> None:
        """Give the strategy the model to start from, and what every order has in common.

        Parameters
        ----------
        model
            The model that was drawn for the run.
        settings
            How clients train.
        seed
            Of the run.
        model_seed
            Of the first parameters, for parts that change or complete what was drawn; None: the run's.

        Raises
        ------
        RuntimeError
            If it has given orders: its parts remember a run, and another one needs a new strategy.
        """
        if self._jobs.begun:
            raise RuntimeError(f"strategy {self.name!r} was run before: make a new one for another run")
        if self._notice:
            _log.warning("%s", self._notice)
        self.train_with(settings or TrainSettings())
        self.seed = seed
        self.model_seed = seed if model_seed is None else model_seed
        self._model = model = self.policy.initial(model, self.model_seed)
        self._jobs = Jobs(self._needs_bases, needs_statistics=_has_statistics(model))
        for part in self.every_part:
            part.start_models(self.model_seed)
        prepare(self._parts.values(), model, seed)

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Have every part look at the model and the examples' features, shape [n, ...], before a run.

        Raises
        ------
        ConfigError
            If a part cannot work with them; with the reason.
        """
        for part in self.every_part:
            part.examine(model, features)

    @property
    def only_simulated(self) -> str:
        """Why real clients cannot do what the strategy asks of them; empty if they can."""
        return next((part.only_simulated for part in self.every_part if part.only_simulated), "")

    @property
    def no_rule(self) -> str:
        """Why no rule can stand in the place of a mean of its updates; empty if one can."""
        return next((part.no_rule for part in self.every_part if part.no_rule), "")

    def train_with(self, settings: TrainSettings) -> None:
        """Take how clients train.

        Raises
        ------
        ConfigError
            If a part does not go with it, or clients would bound a gradient twice.
        """
        if settings.tiny_clients == "ref_drop_last":
            refuse_misfits(self._parts.values(), given=USUAL - {"local-steps"})
        for part in self.every_part:
            part.train_with(settings)
        refuse_two_bounds(self.task_weights.balancing, settings)
        self.settings = settings

    def aggregate_by(self, rule: Rule) -> None:
        """Have a rule stand in the place of the mean of updates in every server step.

        What stands around that mean, such as a server optimiser, stays. Weights that are the method's own judgement of
        the updates are replaced by the rule, too, which the strategy says when a run begins.

        Raises
        ------
        ConfigError
            If a part's declaration (:attr:`strategies.core.part.Part.no_rule`) says that no rule can, if the rule does
            not go with the weights, or no step can have as many clients as the rule needs.
        """
        refuse_rules([rule], self._parts.values())
        weightings = {type(part).__name__: None for part in self.every_part if isinstance(part, Weighting)}
        for part in list(self.every_part):
            if isinstance(part, Aggregator):
                part.aggregate_by(rule)
        kept = {type(part).__name__ for part in self.every_part}
        if replaced := [name for name in weightings if name not in kept]:
            names = " and ".join(replaced)
            self._notice = f"{self.name}: aggregator = {rule.name!r} takes the place of the weights of {names}, too"
        self.expect(None)

    def expect(self, clients: int | None) -> None:
        """Be told how many clients there are; None if nobody knows.

        Raises
        ------
        ConfigError
            If no server step can have the updates of as many clients as a rule needs.
        """
        rules = [part for part in self.every_part if isinstance(part, Rule)]
        if rules:
            refuse_rules(rules, self._parts.values(), self.scheduler.most_clients(clients))

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

    def guard_by(self, factor: float | None) -> None:
        """Turn down updates that are more than so many times as long as the median (:mod:`strategies.core.guard`).

        With 0 none; None: 50 where clients are real, none where they are simulated.

        Raises
        ------
        ConfigError
            If updates of the median length would be too long.
        """
        if factor and factor < 1.0:
            raise ConfigError(f"strategy.guard = {factor:g}: 0 for no guard, or a factor from 1 on")
        self._guard_factor = factor

    def face(self, *, simulated: bool, known: KnownClaim | None = None) -> None:
        """Learn, before the first event, whether clients are simulated, and what is known of their data."""
        usual = 0.0 if simulated else GUARD
        factor = usual if self._guard_factor is None else self._guard_factor
        self.guard.start(factor, by_step=any("assigned-steps" in part.provides for part in self.every_part))
        self._claims = Claims(known)

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
    def _needs_bases(self) -> bool:
        return any(part.needs_bases for part in self.every_part)

    @property
    def every_part(self) -> Iterable[Part]:
        """Its parts and all that these hold, each once, holders first."""
        return parts_within(*self._parts.values())

    @property
    def model(self) -> GlobalModel:
        """The newest version of the global model."""
        if self._model is None:
            raise RuntimeError("the strategy has no model yet: call initialise(model, settings, seed) first")
        return self._model

    @property
    def waiting(self) -> int:
        """How many updates were received and neither applied nor rejected so far."""
        return len(self._jobs.waiting)

    @property
    def busy(self) -> Collection[int]:
        """The clients that have an order."""
        return self._jobs.out

    def unsettled(self) -> tuple[Update, ...]:
        """The updates that were received and neither applied nor rejected so far."""
        return tuple(self._jobs.waiting)

    def next_deadline(self) -> float | None:
        """When the scheduler or the guard wants to be woken, if one does."""
        due = (self.scheduler.next_deadline(), self.guard.deadline)
        return min((time for time in due if time is not None), default=None)

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
                self._jobs.lose(client)
                return self._settle(self.scheduler.on_lost(client, now), now)
            case Joined(time=now, client=client):
                if self._jobs.busy(client) or self.guard.holds(client):
                    return Reaction(NOTHING)
                self.ledger.met((client,))
                return self._settle(self.scheduler.on_idle(client, now), now)

    def reactions(self, event: Event) -> Iterator[Reaction]:
        """The answers to an event, each to be carried out before the next is asked for.

        There is one, as a rule. Updates that the guard held back are handed to the scheduler as soon as there are
        enough to judge them by, and before it hears of anything that may depend on them. So one event may make several
        versions, and more than the run was to make.
        """
        woken = isinstance(event, Deadline)
        if (woken and not self.guard.can_wait(event.time)) or (
            isinstance(event, Lost) and self.guard.holds(event.client)
        ):
            yield from self._judged(event.time)
        due = self.scheduler.next_deadline()
        if not woken or (due is not None and due <= event.time):  # else only the guard was to be woken
            yield self.on_event(event)
        if self.guard.is_due(len(self._jobs.out)):
            yield from self._judged(event.time)

    def finish(self, now: float) -> Reaction:
        """The decision that ends a run."""
        return self._settle(self.scheduler.finish(now), now)

    def aggregate(self, decision: Decision, now: float) -> Aggregation:
        """Take the server step that a decision asks for; the new model is in `model`.

        Raises
        ------
        DivergedError
            If the new model would not be finite. The model is still that of the last step, and the updates wait again;
            but the parts have seen the step, so that there can be no other.
        """
        before = self.model
        updates = self._jobs.take(decision.aggregate)
        self.ledger.applied(updates)
        kept = self._jobs
        step = Step(before, updates, kept.bases, decision.trigger, decision.late, self.ledger, kept.statistics)
        vector, weights = self.aggregator.aggregate(step)
        if not is_finite(vector):
            self._jobs.put_back(updates)
            raise DivergedError(self._not_finite(updates, weights), before.version + 1)
        if _has_statistics(before):
            self._set_statistics(step, vector, weights)
        self._jobs.settle(updates)
        self._model = GlobalModel(before.version + 1, vector, before.layout)
        self.policy.on_weighted(updates, weights)
        self.policy.on_aggregated(before, self._model, updates, self.ledger)
        self.task_weights.on_aggregated(updates, weights, before.layout)
        staleness = tuple(before.version - update.base_version for update in updates)
        return Aggregation(before.version + 1, now, decision.trigger, updates, weights, staleness, decision.late)

    def _not_finite(self, updates: Sequence[Update], weights: Sequence[float]) -> str:
        """What to say of a step that would make the model not finite: which part, and what to do."""
        outer, *inner = (type(part).__name__ for part in parts_within(self.aggregator))
        part = " with ".join([f"the aggregator {outer}", *([", ".join(inner)] if inner else [])])
        wrong = next(((u, w) for u, w in zip(updates, weights, strict=False) if not math.isfinite(w)), None)
        cause = "" if wrong is None else f" (it weighs client {wrong[0].client}'s update by {wrong[1]})"
        return (
            f"strategy {self.name!r}: the server step after version {self.model.version} would have made the model not "
            f"finite, and was not taken; {part} made it of {len(updates)} updates that are finite{cause}: lower "
            "training.learning_rate and the strategy's own rates"
        )

    def _set_statistics(self, step: Step, vector: Tensor, weights: Sequence[float]) -> None:
        """Have the next vector's floating-point buffers be those that the aggregator averages, no variance below 0."""
        part = step.model.layout.buffers
        vector[part] = self.aggregator.statistics(step, vector[part], weights)
        for variance in step.model.layout.variances:
            vector[variance].clamp_(min=0.0)

    def orders(self, assignments: Iterable[Assignment]) -> list[TrainOrder]:
        """The orders for these assignments, from the newest model."""
        return [self._order(assignment) for assignment in assignments]

    def _order(self, assignment: Assignment) -> TrainOrder:
        client, model = assignment.client, self.model
        if self._jobs.busy(client):
            raise RuntimeError(f"{type(self.scheduler).__name__} assigned client {client}, which is still training")
        instruction = self.policy.instruct(client, self.settings, model, self.ledger)
        limits = self.policy.most(instruction.settings)
        job = self._jobs.give(client, model, assignment.steps, instruction.settings, limits)
        return TrainOrder(
            client=client,
            job=job,
            base=self.aggregator.model_for(client, model, self.ledger),
            steps=assignment.steps,
            settings=instruction.settings,
            task_factors=self.task_weights.weights(),
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
        wrong = form_fault(update)
        asked = self._jobs.asked(update) if type(update.client) is int else None
        if asked is None:
            return Reaction(NOTHING, (Rejection(now, recordable(update), wrong or self._jobs.stray(update)),))
        lengths = self.guard.lengths(self.model.layout.heads)
        if (fault := wrong or self._fault(update, asked, lengths)) is not None:
            self._jobs.lose(update.client)
            return self._rejected(update, fault, now)
        self._jobs.keep(update)
        update.arrived_version = self.model.version
        if self.guard.factor:
            measured = self.guard.measured(update, lengths, self.policy.reports(update.tasks).vectors)
            if self.guard.opening:
                self.guard.hold(update, measured, now)
                return Reaction(NOTHING)
        fault = self._excess(update) or (self.guard.fault(measured) if self.guard.factor else None)
        return self._accepted(update, now) if fault is None else self._turned_down(update.key, fault, now)

    def _judged(self, now: float) -> Iterator[Reaction]:
        """The answers to the updates that the guard held, in the order in which they came."""
        held = {update.key: update for update in self._jobs.waiting}
        for key, fault in self.guard.judge(lambda key: self._excess(held[key])):
            yield self._accepted(held[key], now) if fault is None else self._turned_down(key, fault, now)

    def _excess(self, update: Update) -> str | None:
        return None if self._claims is None else self._claims.excess(update)

    def _accepted(self, update: Update, now: float) -> Reaction:
        self.ledger.received(update)
        return self._settle(self.scheduler.on_update(update, now), now)

    def _turned_down(self, key: JobKey, fault: str, now: float) -> Reaction:
        (update,) = updates = self._jobs.take([key])
        self._jobs.settle(updates)
        return self._rejected(update, fault, now)

    def _rejected(self, update: Update, fault: str, now: float) -> Reaction:
        """The client goes on as if it had not answered."""
        reaction = self._settle(self.scheduler.on_idle(update.client, now), now)
        rejection = Rejection(now, recordable(update), printable(fault))
        return Reaction(reaction.decision, (rejection, *reaction.rejections))

    def _fault(self, update: Update, asked: Asked, lengths: Lengths) -> str | None:
        """Why an update must not be applied, or None. Updates come from outside and are not trusted."""
        if update.base_version != asked.version:
            return f"claims version {update.base_version}, was sent {asked.version}"
        if update.failure is not None:
            return update.failure
        if (compression := self._compression(update.base_version)) is not None and self.compressor is not None:
            try:
                update.delta = self.compressor.restore(update.delta, self.model.layout, compression.seed)
            except CompressionError as error:
                return str(error)
        least = 0 if self.settings.tiny_clients == "ref_drop_last" else 1
        parts = (self.policy, self.task_weights, self.ledger)
        found = content_fault(update, asked, self.model, *parts, least_steps=least, lengths=lengths)
        return found if found is not None or self._claims is None else self._claims.differs(update)

    def _settle(self, decision: Decision, now: float) -> Reaction:
        turned_down = self._jobs.take(key for key, _ in decision.rejected)
        self._jobs.settle(turned_down)
        reasons = zip(turned_down, decision.rejected, strict=True)
        return Reaction(decision, tuple(Rejection(now, update, reason) for update, (_, reason) in reasons))

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on to the same bits."""
        return {
            "model": {"version": self.model.version, "vector": self.model.vector},
            **self._jobs.state_dict(),
            "ledger": self.ledger.state_dict(),
            "guard": self.guard.state_dict() if self.guard.factor else None,
            "claims": None if self._claims is None else self._claims.state_dict(),
            "parts": states_of(self._parts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned; the strategy must be initialised with a model of that layout."""
        self._model = GlobalModel(int(state["model"]["version"]), state["model"]["vector"], self.model.layout)
        self._jobs.load_state_dict(state)
        for update in self._jobs.waiting:
            if update.delta.shape != self._model.vector.shape:
                found, known = update.delta.numel(), self._model.vector.numel()
                raise ValueError(f"'received': a delta has {found} entries where the model has {known}")
        self.ledger.load_state_dict(state["ledger"])
        if self.guard.factor and state["guard"] is not None:
            self.guard.load_state_dict(state["guard"])
        if self._claims is not None and state["claims"] is not None:
            self._claims.load_state_dict(state["claims"])
        restore(self._parts, state["parts"])


def _has_statistics(model: GlobalModel) -> bool:
    return bool(model.layout.buffers.stop > model.layout.buffers.start)
