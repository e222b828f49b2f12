"""The four parts of a strategy.

Each is plain Python over values: no clock (it is handed `now`), no thread, no disk, no network. Each keeps its state in
attributes that `state_dict` returns and `load_state_dict` takes: a nested dictionary of numbers, strings, lists and
tensors.

Not every part goes with every other. A part says in `provides` what others can rely on, and in `needs` what it relies
on itself and why, as class attributes or, where it depends on options, set in ``__init__``::

    class Scheduler...: provides = frozenset({"every-update"})
    class Policy...:    needs = {"every-update": "a variate whose update is dropped is counted on the client alone"}

:class:`strategies.strategy.Strategy` refuses a combination in which a need is met by no part, with the reason. Parts
that are held by parts (a weighting by an aggregator, say) are asked as well. A kind of guarantee that is missing is a
new word in :data:`Trait`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.models.multitask import MultiTaskModel
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import NOTHING, Balancing, Decision, GlobalModel, JobKey, TrainSettings, Update
from strategies.ledger import Ledger

Trait = Literal[
    "every-update",
    "fresh-updates",
    "distinct-clients",
    "groups",
    "assigned-steps",
    "feedback",
    "duals",
    "duals-mean",
    "task-changes",
    "exact-updates",
    "local-steps",
    "merging",
]
"""What a part can provide to others:

``"every-update"``
    The scheduler has every valid update applied; it turns none down.
``"fresh-updates"``
    Every update that is applied started from the newest version: there is no staleness.
``"distinct-clients"``
    No client occurs twice in a server step.
``"groups"``
    The trigger ``"single"`` tells a client's lone report from a step of a group.
``"assigned-steps"``
    Every order says how many local steps to run.
``"feedback"``
    Updates carry FedQS's feedback bit and similarity.
``"duals"``
    Clients correct their steps by dual variables, which move by their updates.
``"duals-mean"``
    The mean of the clients' dual variables goes into the model.
``"task-changes"``
    Updates carry a change of the backbone for each task.
``"exact-updates"``
    An update arrives as its client made it. Every strategy has this unless it compresses updates.
``"local-steps"``
    An update comes of one local step at least. Every strategy has this unless clients drop short batches.
``"merging"``
    Clients merge their neighbours' models themselves.
"""

USUAL: frozenset[Trait] = frozenset({"exact-updates", "local-steps"})
"""What every strategy has of itself."""


class Part:
    """What every part has: a state that can be saved and restored. Parts without state inherit these as they are.

    Attributes
    ----------
    provides
        What other parts can rely on.
    needs
        What the part relies on, each with the reason, as a clause that stands after a semicolon.
    only_simulated
        Why real clients cannot do what the part asks of them; empty if they can.
    """

    provides: frozenset[Trait] = frozenset()
    needs: Mapping[Trait, str] = MappingProxyType({})
    only_simulated: str = ""

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Before anything else: the model that the run starts from, and the run's seed for the part's random draws."""
        return None

    def examine(self, model: MultiTaskModel, features: Tensor) -> None:
        """Look at the model and the examples' features, shape [n, ...], before a run.

        Raises
        ------
        ConfigError
            If the part cannot work with them; with the reason.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """The part's state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")


def parts_within(part: Part) -> Iterator[Part]:
    """The part and the parts that it holds, at any depth."""
    yield part
    for value in vars(part).values():
        if isinstance(value, Part):
            yield from parts_within(value)


def refuse_misfits(parts: Iterable[Part], given: Iterable[Trait] = USUAL) -> None:
    """Refuse parts that do not go together, beside what is given anyway.

    Raises
    ------
    ConfigError
        If a need of one is provided by none, or an aggregator hides the clients' own models that one inside it has;
        the message says whose, what and why.
    """
    every = [inner for part in parts for inner in parts_within(part)]
    for part in every:
        _refuse_models_that_nobody_is_sent(part)
    provided = frozenset(given).union(trait for part in every for trait in part.provides)
    for part in every:
        for trait, reason in part.needs.items():
            if trait not in provided:
                names = " x ".join(dict.fromkeys(type(other).__name__ for other in every if other is not part))
                raise ConfigError(
                    f"{type(part).__name__} with {names}: it needs {trait!r}, which none of them has; {reason}"
                )


def _refuse_models_that_nobody_is_sent(holder: Part) -> None:
    if not isinstance(holder, Aggregator) or type(holder).model_for is not Aggregator.model_for:
        return
    for inner in vars(holder).values():
        if isinstance(inner, Aggregator) and type(inner).model_for is not Aggregator.model_for:
            raise ConfigError(
                f"{type(holder).__name__} holds {type(inner).__name__}, which has a model for each client, but clients "
                f"would be sent the global one; let {type(inner).__name__} be the strategy's aggregator itself"
            )


class Scheduler(Part, ABC):
    """Decides who trains, for how many steps, and when the server aggregates.

    A scheduler sees updates but keeps only their keys; the strategy keeps the updates themselves.
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

    def finish(self, now: float) -> Decision:
        """The run is over: a last server step of updates that are still kept, if any. It gives no orders."""
        return NOTHING


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What a server step starts from.

    Attributes
    ----------
    model
        The newest model; its version is still the one before the step.
    updates
        The updates that go in, in order; a client may occur twice.
    bases
        For each version that an update started from, that version's vector; empty unless the aggregator asks for them.
    trigger, late
        From the scheduler's decision.
    ledger
        It already counts these updates as aggregated.
    """

    model: GlobalModel
    updates: Sequence[Update]
    bases: Mapping[int, Tensor]
    trigger: str
    late: frozenset[JobKey]
    ledger: Ledger


class Aggregator(Part, ABC):
    """Decides how the chosen updates change the model.

    Attributes
    ----------
    needs_bases
        Whether :attr:`Step.bases` is needed. The strategy then keeps a base vector while an order or a received
        update that started from it exists, and not longer.
    averages_models
        Whether models are averaged, so that a stale update pulls the model back to where it started from, or updates
        are added.
    """

    needs_bases: bool = False
    averages_models: bool = False

    @abstractmethod
    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """The next vector (a new one, shape [P]), and the weight that each update had."""

    def model_for(self, client: int, model: GlobalModel, ledger: Ledger) -> GlobalModel:
        """What the client trains next: the newest model, or one of its own of the same version."""
        return model

    def transfers(self, client: int, version: int, ledger: Ledger) -> tuple[int, int]:
        """How many models travel down and up with the client's next job."""
        return (1, 1)

    def own_models(self) -> Mapping[int, Tensor]:
        """The clients' own models, flat vectors of shape [P], where they have any."""
        return {}


class Weighting(Part, ABC):
    """Decides the weight of each update in an aggregation.

    Attributes
    ----------
    needs_bases
        Whether `look` needs :attr:`Step.bases`.
    """

    needs_bases: bool = False

    def look(self, step: Step) -> None:
        """See a whole server step before being asked for its weights, which happens once or several times.

        For rules that depend on the vectors. A rule that asks another one lets it look as well.
        """
        return None

    @abstractmethod
    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        """A weight for each update; `version` is the server's before the aggregation."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a policy adds to an order."""

    settings: TrainSettings
    terms: Mapping[str, float]
    vectors: Mapping[str, Tensor]


class ClientPolicy(Part):
    """Decides what each client is told. `name` selects the client's half in :mod:`clients.adaptation`.

    `reported` names the vectors, of shape [P], that this half sends up; an update without them is rejected.
    """

    name: str = "plain"
    reported: tuple[str, ...] = ()

    def initial(self, model: GlobalModel, seed: int) -> GlobalModel:
        """The model that a run starts from, given the one that was drawn for it."""
        return model

    @property
    def constants(self) -> Mapping[str, Any]:
        """What the client's half needs and every order of the run has alike."""
        return {}

    def instruct(self, client: int, settings: TrainSettings, model: GlobalModel, ledger: Ledger) -> Instruction:
        """What to tell a client that is about to be sent an order."""
        return Instruction(settings, {}, {})

    def compression(self, client: int, version: int) -> Mapping[str, Any]:
        """Options of the compressor, if there is one, that are a client's own in an order from this version."""
        return {}

    def on_weighted(self, updates: Sequence[Update], weights: Sequence[float]) -> None:
        """A server step is being taken with these weights; `on_aggregated` follows."""
        return None

    def on_aggregated(self, before: GlobalModel, after: GlobalModel, updates: Sequence[Update], ledger: Ledger) -> None:
        """A server step was taken."""
        return None


class TaskWeights(Part):
    """Decides how tasks are weighted, within a client's step and across clients."""

    @property
    def balancing(self) -> Balancing:
        """How a client balances its tasks within a step."""
        return Balancing()

    def fit(self, aggregator: Aggregator, policy: ClientPolicy) -> tuple[Aggregator, ClientPolicy]:
        """The parts of the strategy that carries these weights: others, where weighing needs more than a factor."""
        return aggregator, policy

    def weights(self) -> tuple[float, ...] | None:
        """A factor per task that is sent with every order; None for ones."""
        return None

    def fault(self, update: Update, layout: ParameterLayout) -> str | None:
        """Why an update lacks what these weights ask of clients, so that it must not be applied, or None."""
        return None

    def on_aggregated(self, updates: Sequence[Update], weights: Sequence[float], layout: ParameterLayout) -> None:
        """A server step was taken with these weights."""
        return None
