"""The kinds of parts that a strategy is made of.

Each is plain Python over values: no clock (it is handed `now`), no thread, no disk, no network. Each keeps its state in
attributes that `state_dict` returns and `load_state_dict` takes: a nested dictionary of numbers, strings, lists and
tensors. What they have in common, and how they say what they need of each other, is in :mod:`strategies.core.part`.
Long because each kind has an example of the least that a part of this kind must do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import NOTHING, Balancing, Decision, GlobalModel, Rejection, TrainSettings, Update
from fedmtl.update_contract import Range, Reportable
from strategies.core.ledger import Ledger
from strategies.core.part import Part
from strategies.core.step import Step as Step


class Scheduler(Part, ABC):
    """Decides who trains, for how many steps, and when the server aggregates.

    A scheduler sees updates but keeps only their keys; the strategy keeps the updates themselves.

    Examples
    --------
    The least of one: everybody trains all the time, and every update is a server step.

    >>> from fedmtl.protocol import NOTHING, Assignment, Decision
    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.kinds import Scheduler
    >>> class Eager(Scheduler):
    ...     def begin(self, clients, now):
    ...         return Decision(assignments=tuple(Assignment(client) for client in clients))
    ...     def on_update(self, update, now):
    ...         return Decision((update.key,), "single", assignments=(Assignment(update.client),))
    ...     def on_idle(self, client, now):
    ...         return self.begin([client], now)
    ...     def on_lost(self, client, now):
    ...         return NOTHING
    >>> Eager().on_update(toy_update(2), now=1.0).aggregate
    (JobKey(client=2, job=0),)
    """

    @abstractmethod
    def begin(self, clients: Sequence[int], now: float) -> Decision:
        """The first orders, to the clients that are there at the start."""

    @abstractmethod
    def on_update(self, update: Update, now: float) -> Decision:
        """A valid update arrived."""

    def on_deadline(self, now: float) -> Decision:
        """The time of `next_deadline` has come."""
        return NOTHING

    def next_deadline(self) -> float | None:
        """When the scheduler wants to be woken, if it does."""
        return None

    @abstractmethod
    def on_idle(self, client: int, now: float) -> Decision:
        """The client is free without having delivered: its update was rejected, or it joined (again)."""

    @abstractmethod
    def on_lost(self, client: int, now: float) -> Decision:
        """The client is gone; the order it had, if any, will not be answered."""

    def most_clients(self, clients: int | None) -> int | None:
        """How many clients' updates a server step has at most, of so many that there are; None where nobody knows."""
        return clients

    def updates_per_version(self, clients: int) -> int:
        """The updates that must arrive, at least, before there is a next version, where so many clients train."""
        return 1

    def remarks(self, clients: int) -> Sequence[str]:
        """Where options come to something else than they say with so many clients, a clause for each."""
        return ()

    def finish(self, now: float) -> Decision:
        """The run is over: a last server step of updates that are still kept, if any. It gives no orders."""
        return NOTHING


@dataclass(frozen=True, slots=True)
class Reaction:
    """The strategy's answer to an event: the scheduler's decision, and the updates that were turned down.

    Examples
    --------
    An update that nobody asked for:

    >>> from fedmtl.protocol import Arrival
    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.schedulers import Asynchronous
    >>> from strategies.weightings import Uniform
    >>> strategy = Strategy(Asynchronous(), GradientAggregator(Uniform()))
    >>> strategy.initialise(toy_model([0.0, 0.0]))
    >>> reaction = strategy.on_event(Arrival(1.0, toy_update(5)))
    >>> reaction.decision.aggregate, reaction.rejections[0].reason
    ((), 'never asked for')
    """

    decision: Decision
    rejections: tuple[Rejection, ...] = ()


class Aggregator(Part, ABC):
    """Decides how the chosen updates change the model.

    Attributes
    ----------
    averages_models
        Whether models are averaged, so that a stale update pulls the model back to where it started from, or updates
        are added.
    no_rule
        An aggregator whose step is no mean of updates needs to say nothing; one whose step is such a mean, or that of
        another aggregator, says so by an empty text.

    Examples
    --------
    The least of one: only the newest update counts.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Aggregator, Step
    >>> class Newest(Aggregator):
    ...     def aggregate(self, step):
    ...         weights = (*[0.0] * (len(step.updates) - 1), 1.0)
    ...         return step.model.vector + step.updates[-1].delta, weights
    >>> updates = [toy_update(0, [5.0, 5.0]), toy_update(1, [0.0, 2.0])]
    >>> Newest().aggregate(Step.of(toy_model([1.0, 1.0]), updates))
    (tensor([1., 3.]), (0.0, 1.0))
    """

    averages_models: bool = False
    no_rule = "its step is not a mean of the updates at hand"

    @abstractmethod
    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The next vector (a new one, shape [P]), and the weight that each update had."""

    def aggregate_by(self, rule: Rule) -> None:
        """Have the rule stand in the place of the mean of updates, if the aggregator takes one itself."""
        return None

    def statistics(self, step: Step, proposed: Tensor, weights: Sequence[float]) -> Tensor:
        """The next floating-point buffers (statistics of batch norm), shape [buffers].

        Statistics are values that are averaged, whatever a rule does with the rest of an update: a sum of changes may
        leave a variance below zero. So the strategy takes them from here and not from `aggregate`; it does not ask for
        a model without.

        Parameters
        ----------
        step
            The step that was taken.
        proposed
            What `aggregate` has made of them; here it is not used.
        weights
            What `aggregate` returned.
        """
        return step.mean_statistics(weights)

    def model_for(self, client: int, model: GlobalModel, ledger: Ledger) -> GlobalModel:
        """What the client trains next: the newest model, or one of its own of the same version."""
        return model

    def transfers(self, client: int, version: int, ledger: Ledger) -> tuple[int, int]:
        """How many models travel down and up with the client's next job."""
        return (1, 1)

    def own_models(self) -> Mapping[int, Tensor]:
        """The clients' own models, flat vectors of shape [P], where they have any."""
        return {}


class Rule(Part, ABC):
    """What is made of the clients' updates in place of their weighted mean: a robust one bears some that lie.

    A rule sees one vector for each client of a step, and gives one that stands for them all. How weights, staleness
    and a client's several updates go with it is in :mod:`strategies.aggregators.by_rule`.

    Attributes
    ----------
    name
        What a configuration calls it.
    whole
        Whether it must see whole updates, so that heads are not combined apart from their owners' alone.
    alike
        Whether all clients must count the same.
    by_entry
        Whether it looks at each entry apart, so that it may choose among values of single entries (statistics of batch
        norm) as it does among updates.

    Examples
    --------
    The least of one: the update in the middle, by the first entry.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.kinds import Rule, Step
    >>> from strategies.weightings import Uniform
    >>> class Middle(Rule):
    ...     name = "middle"
    ...     least = 3
    ...     def combine(self, vectors, weights, version):
    ...         ranked = sorted(range(len(vectors)), key=lambda place: float(vectors[place][0]))
    ...         middle = ranked[len(ranked) // 2]
    ...         return vectors[middle], tuple(float(place == middle) for place in range(len(vectors)))
    >>> aggregator = GradientAggregator(Uniform())
    >>> aggregator.aggregate_by(Middle())
    >>> deltas = [[1.0, 2.0], [1000.0, 1000.0], [3.0, 4.0]]
    >>> aggregator.aggregate(Step.of(toy_model([0.0, 0.0]), [toy_update(c, delta) for c, delta in enumerate(deltas)]))
    (tensor([3., 4.]), (0.0, 0.0, 1.0))
    """

    name: str = "rule"
    whole: bool = False
    alike: bool = False
    by_entry: bool = False
    least: int = 1
    """Clients of a step below which the rule does not do what it is there for."""

    @abstractmethod
    def combine(
        self, vectors: Sequence[Tensor], weights: Sequence[float], version: int
    ) -> tuple[Tensor | None, tuple[float, ...]]:
        """One vector for all.

        Parameters
        ----------
        vectors
            One for each client, shape [P]; not to be written to.
        weights
            How much each client counts, where the rule counts them differently.
        version
            The server's before the step.

        Returns
        -------
        vector, shares
            Shape [P], and the share that each of the vectors had in it; None and zeros where the rule proposes nothing,
            so that the model stays as it is.
        """


class Weighting(Part, ABC):
    """Decides the weight of each update in an aggregation.

    Examples
    --------
    The least of one: an update counts as its client is fast.

    >>> from fedmtl.toy import toy_update
    >>> from strategies.core.kinds import Weighting
    >>> from strategies.core.ledger import Ledger
    >>> class BySpeed(Weighting):
    ...     def weights(self, updates, version, ledger):
    ...         speeds = [1.0 / update.duration for update in updates]
    ...         return tuple(speed / sum(speeds) for speed in speeds)
    >>> BySpeed().weights([toy_update(0, arrived_at=1.0), toy_update(1, arrived_at=3.0)], 0, Ledger())
    (0.75, 0.25)
    """

    def look(self, step: Step) -> None:
        """See a whole server step before being asked for its weights, which happens once or several times.

        For rules that depend on the vectors. A rule that asks another one lets it look as well.
        """
        return None

    @abstractmethod
    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """A weight for each update; `version` is the server's before the aggregation."""

    @property
    def alike(self) -> bool:
        """Whether all clients of a step count the same, but for their staleness."""
        return False

    def scales(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """The part of each weight that makes updates comparable, such as one over the work that each took.

        A rule that compares updates sees them multiplied with it.
        """
        return (1.0,) * len(updates)

    def under_rule(self) -> Weighting:
        """The weights that stand in the place of these where a rule stands in the place of the mean.

        Others where these are the method's own judgement of the updates, which is then the rule's task.
        """
        return self


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a policy adds to an order.

    Examples
    --------
    Half way through a curriculum that opens with a quarter of the examples:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.core.ledger import Ledger
    >>> from strategies.policies.curriculum import Curriculum
    >>> policy = Curriculum(start=0.25, versions=100)
    >>> policy.instruct(0, TrainSettings(), toy_model([0.0], version=50), Ledger()).terms
    {'share': 0.625}
    """

    settings: TrainSettings
    terms: Mapping[str, float]
    vectors: Mapping[str, Tensor]


class ClientPolicy(Part, ABC):
    """Decides what each client is asked to do: the server's half of a policy.

    Attributes
    ----------
    name
        Selects the client's half in :mod:`clients.policies`.
    constants
        What that half needs and every order of the run has alike.
    reported
        The vectors, of shape [P], that it sends up; an update without them is rejected.
    measured
        The terms that it may send up, each with its range. An update with others is rejected, as is one with vectors
        that are not in `reports`.

    Examples
    --------
    The least of one: clients take smaller steps as the run goes on.

    >>> import dataclasses
    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.core.kinds import ClientPolicy, Instruction
    >>> from strategies.core.ledger import Ledger
    >>> class Cooling(ClientPolicy):
    ...     def instruct(self, client, settings, model, ledger):
    ...         rate = settings.learning_rate / (1 + model.version)
    ...         return Instruction(dataclasses.replace(settings, learning_rate=rate), {}, {})
    >>> settings = TrainSettings(learning_rate=0.5)
    >>> Cooling().instruct(0, settings, toy_model([0.0], version=4), Ledger()).settings.learning_rate
    0.1
    """

    name: str = "plain"
    constants: Mapping[str, Any] = MappingProxyType({})
    reported: tuple[str, ...] = ()
    measured: Mapping[str, Range] = MappingProxyType({})

    def initial(self, model: GlobalModel, seed: int) -> GlobalModel:
        """The model that a run starts from, given the one that was drawn for it and the seed of first parameters."""
        return model

    @abstractmethod
    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """What the client's next order says."""

    def reports(self, tasks: tuple[int, ...]) -> Reportable:
        """What a client with these tasks may send up; a vector enters the model, unless this says otherwise."""
        return Reportable(dict.fromkeys(self.reported, True), self.measured)

    def most(self, settings: TrainSettings) -> tuple[float, float]:
        """The largest learning rate and momentum that a client which is sent these settings may train with."""
        return settings.learning_rate, settings.momentum

    def fault(self, update: Update) -> str | None:
        """Why what a client says cannot be true, so that its update must not be applied, or None."""
        return None

    def compression(self, client: int, version: int) -> Mapping[str, Any]:
        """Options of the compressor, if there is one, that are a client's own in an order from this version."""
        return {}

    def on_weighted(self, updates: Sequence[Update], weights: Sequence[float]) -> None:
        """A server step is being taken with these weights; `on_aggregated` follows."""
        return None

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """A server step was taken."""
        return None


class Plain(ClientPolicy):
    """Clients train with the run's settings.

    Examples
    --------
    Nothing is added to what the run says:

    >>> from fedmtl.protocol import TrainSettings
    >>> from fedmtl.toy import toy_model
    >>> from strategies.core.kinds import Plain
    >>> from strategies.core.ledger import Ledger
    >>> settings = TrainSettings()
    >>> Plain().instruct(0, settings, toy_model([0.0]), Ledger()).settings is settings
    True
    """

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """The run's settings, as they are."""
        return Instruction(settings, {}, {})


class TaskWeights(Part, ABC):
    """Decides how tasks are weighted, within a client's step and across clients.

    Examples
    --------
    The least of one: the second task counts twice, and every order says so.

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import GradientAggregator
    >>> from strategies.core.kinds import TaskWeights
    >>> from strategies.core.strategy import Strategy
    >>> from strategies.schedulers import Synchronous
    >>> from strategies.weightings import Uniform
    >>> class SecondTwice(TaskWeights):
    ...     def weights(self):
    ...         return (1.0, 2.0)
    >>> strategy = Strategy(Synchronous(), GradientAggregator(Uniform()), task_weights=SecondTwice())
    >>> strategy.initialise(toy_model([0.0, 0.0], heads=(0, 0)))
    >>> strategy.orders(strategy.begin([7], now=0.0).decision.assignments)[0].task_factors
    (1.0, 2.0)
    """

    @property
    def balancing(self) -> Balancing:
        """How a client balances its tasks within a step; it may follow what `train_with` was told."""
        return Balancing()

    def adjust(self, aggregator: Aggregator, policy: ClientPolicy) -> tuple[Aggregator, ClientPolicy]:
        """The parts of the strategy that carries these weights: others, where weighing needs more than a factor."""
        return aggregator, policy

    @abstractmethod
    def weights(self) -> tuple[float, ...] | None:
        """A factor per task that is sent with every order; None for ones."""

    def fault(self, update: Update, layout: ParameterLayout) -> str | None:
        """Why an update lacks what these weights ask of clients, so that it must not be applied, or None."""
        return None

    def on_aggregated(self, updates: Sequence[Update], weights: Sequence[float], layout: ParameterLayout) -> None:
        """A server step was taken with these weights."""
        return None


class Equal(TaskWeights):
    """Every task's loss has weight 1, on every client.

    Examples
    --------
    The server sends no factors, and clients add their tasks' gradients up:

    >>> from strategies.core.kinds import Equal
    >>> Equal().weights() is None, Equal().balancing.name
    (True, 'equal')
    """

    def weights(self) -> None:
        """None: a factor of 1 for every task."""
        return None
