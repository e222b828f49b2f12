"""What the parts of a strategy have in common, and the words in which they say what they need of each other.

Not every part goes with every other. A part says in `provides` what others can rely on, and in `needs` what it relies
on itself and why, as class attributes or, where it depends on options, set in ``__init__``::

    class Scheduler...: provides = frozenset({"every-update"})
    class Policy...:    needs = {"every-update": "a variate whose update is dropped is counted on the client alone"}

:mod:`strategies.core.compatibility` refuses a combination in which a need is met by no part, with the reason. Parts
that are held by parts (a weighting by an aggregator, say) are asked as well. A kind of guarantee that is missing is a
new word in :data:`Trait`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from fedmtl.models.multitask import MultiTaskModel
from fedmtl.protocol import GlobalModel, TrainSettings

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
    The trigger ``"single"`` marks a step of one client's lone report; all others are steps of a group.
``"assigned-steps"``
    Every order says how many local steps to run.
``"feedback"``
    Updates carry FedQS's feedback bit and similarity, as terms.
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
    """What every part of a strategy has: a state, and other parts that it may hold.

    `train_with`, `prepare`, `examine`, `state_dict` and `load_state_dict` are about a part alone. Nobody hands them on:
    a strategy calls them for every part that is held by one of its own, at any depth (:func:`every_part`), so that a
    part with a state works wherever it is put. Parts without a state inherit these methods as they are.

    Attributes
    ----------
    provides
        What other parts can rely on.
    needs
        What the part relies on, each with the reason, as a clause that stands after a semicolon.
    needs_bases
        Whether the part looks at :attr:`strategies.core.kinds.Step.bases`. The strategy then keeps a base vector while
        an order or a received update that started from it exists, and not longer.
    follows
        Terms of updates that the ledger is to follow, each with the largest value that is credible; none is below 0.
    only_simulated
        Why real clients cannot do what the part asks of them; empty if they can.
    no_rule
        Why no rule can stand in the place of the mean of updates beside this part
        (:class:`strategies.core.kinds.Rule`), as a clause that stands after a colon; empty if one can.

    Examples
    --------
    The strategy finds parts wherever they are held, prepares them, and saves their states under these places.

    >>> from fedmtl.toy import toy_model
    >>> from strategies.aggregators import GradientAggregator, Optimized
    >>> from strategies.aggregators.server_optimizers import SGD
    >>> from strategies.core.part import every_part, prepare, states_of
    >>> from strategies.weightings import Uniform
    >>> roots = {"aggregator": Optimized(GradientAggregator(Uniform()), SGD(momentum=0.9))}
    >>> list(every_part(roots))
    ['aggregator', 'aggregator.base', 'aggregator.base.weighting', 'aggregator.optimizer']
    >>> prepare(roots.values(), toy_model([1.0, 2.0]), seed=0)
    >>> states_of(roots)
    {'aggregator.optimizer': {'v': tensor([0., 0.])}}
    """

    provides: frozenset[Trait] = frozenset()
    needs: Mapping[Trait, str] = MappingProxyType({})
    needs_bases: bool = False
    follows: Mapping[str, float] = MappingProxyType({})
    only_simulated: str = ""
    no_rule: str = ""

    def held_parts(self) -> Iterator[tuple[str, Part]]:
        """The parts in this one's attributes, also those in lists, tuples and dictionaries there, each with its place.

        A part that makes parts later, or prepares them otherwise than the strategy would, hides them here, and then has
        their states in its own.
        """
        for name, value in vars(self).items():
            yield from _parts_in(name, value)

    def train_with(self, settings: TrainSettings) -> None:
        """Learn how clients train, unless a policy says otherwise: what is unset may follow from it.

        A strategy says so before it prepares a part, and may say it more than once before a run.

        Raises
        ------
        ConfigError
            If the part's options do not go with it.
        """
        return None

    def start_models(self, seed: int) -> None:
        """Take the seed of first parameters, for models that the part has clients start from; `prepare` follows."""
        return None

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
        """The part's own state, without those of the parts that it holds.

        Numbers, texts, None, tensors, and lists and dictionaries of these, with texts as keys.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, but was given {sorted(state)}")


def every_part(roots: Mapping[str, Part]) -> dict[str, Part]:
    """These parts and all that they hold, at any depth, by their places, such as ``"aggregator.base.weighting"``.

    Each part occurs once, however often it is held, at the first place where it is met; a holder comes before what it
    holds.
    """
    found: dict[str, Part] = {}
    met: set[int] = set()

    def visit(place: str, part: Part) -> None:
        if id(part) not in met:
            met.add(id(part))
            if place in found:
                raise ValueError(f"two parts are held at the place {place!r}: their states could not be told apart")
            found[place] = part
            for name, inner in part.held_parts():
                visit(f"{place}.{name}", inner)

    for place, part in roots.items():
        visit(place, part)
    return found


def parts_within(*parts: Part) -> Iterable[Part]:
    """These parts and all that they hold, each once, holders first."""
    return every_part({str(place): part for place, part in enumerate(parts)}).values()


def prepare(parts: Iterable[Part], model: GlobalModel, seed: int) -> None:
    """Prepare these parts and all that they hold, each once, and what a part holds before the part itself.

    Raises
    ------
    TypeError
        If a part can save its state and not restore it, or the reverse.
    """
    met: set[int] = set()

    def visit(part: Part) -> None:
        if id(part) not in met:
            met.add(id(part))
            for _, inner in part.held_parts():
                visit(inner)
            saves, loads = (getattr(type(part), name) is not getattr(Part, name) for name in _STATE)
            if saves != loads:
                raise TypeError(
                    f"{type(part).__name__} has only one of {' and '.join(_STATE)}: it needs both, or neither"
                )
            part.prepare(model, seed)

    for part in parts:
        visit(part)


def states_of(roots: Mapping[str, Part]) -> dict[str, dict[str, Any]]:
    """The states of these parts and of all that they hold, by their places; parts without one are left out.

    Raises
    ------
    TypeError
        If a state holds what a checkpoint would not give back as it was; the message names the part and the place.
    """
    states = {place: part.state_dict() for place, part in every_part(roots).items()}
    for place, state in states.items():
        _check(state, place)
    return {place: state for place, state in states.items() if state}


def _check(value: Any, place: str) -> None:
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"the state of {place} has the key {wrong[0]!r}: keys are texts; take a list of pairs")
        for key, entry in value.items():
            _check(entry, f"{place}: {key}")
    elif not isinstance(value, list | tuple | str | bool | int | float | Tensor | None):
        raise TypeError(
            f"the state of {place} is {type(value).__name__}: take numbers, texts, lists, dictionaries, tensors"
        )


def restore(roots: Mapping[str, Part], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Restore what `states_of` returned of parts like these.

    Raises
    ------
    ValueError
        If a state belongs to no part, or a part with a state was saved without: the parts are others than those whose
        states these are. If a part exchanges the parts that it holds when it is restored, which then lack their states:
        it must hide them (:meth:`Part.held_parts`) and keep their states in its own.
    """
    parts = every_part(roots)
    if strangers := sorted(states.keys() - parts.keys()):
        raise ValueError(f"there is no part for the state of {strangers[0]!r}; there are {', '.join(parts)}")
    for place, part in parts.items():
        if place in states:
            part.load_state_dict(states[place])
        elif part.state_dict():
            raise ValueError(f"there is no state for the part {place!r} ({type(part).__name__})")
    if [id(part) for part in every_part(roots).values()] != [id(part) for part in parts.values()]:
        raise ValueError("a part exchanged the parts that it holds while it was restored: it must hide them")


_WALKED = (Part, list, tuple, dict)
_STATE = ("state_dict", "load_state_dict")


def _parts_in(name: str, value: Any) -> Iterator[tuple[str, Part]]:
    if isinstance(value, Part):
        yield name, value
    elif isinstance(value, list | tuple | dict):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            if isinstance(entry, _WALKED):  # a client's entry, of which there may be many, as a rule is not
                yield from _parts_in(f"{name}.{key}", entry)
