"""Free composition: any scheduler, selector, aggregator, weighting and client policy, by name.

A part is its name alone, or a section with its name and options; parts inside a part are sections of it::

    [strategy]                              # FedQS's typing and weights over FedCompass's groups
    name = "custom"
    policy = "fedqs"

    [strategy.scheduler]
    name = "compass"
    q_max = 20

    [strategy.weighting]
    name = "share-of-all"
    base = "fedqs"

or, on the command line, ``--set strategy.scheduler.name=compass --set strategy.scheduler.q_max=20``. A part's options
are the keyword-only parameters of its builder, and the parts inside it the others, each of the kind that its annotation
names; where there may be none (``Selector | None``), one is taken whose builder makes none (``"random"``). The one
`weighting` goes to whatever aggregator asks for weights, however deep it is. Task weights come from [balancing]. A
combination that makes no sense is refused with the reason; a part that goes with one scheduler alone (tier-models,
scaled-rate) is given the composition's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

from fedmtl.components import Param, check_options, choose
from fedmtl.errors import ConfigError
from strategies.aggregators.table import AGGREGATORS
from strategies.core.kinds import Aggregator, ClientPolicy, Scheduler, TaskWeights, Weighting
from strategies.core.part import Part
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.table import POLICIES
from strategies.recipes.papers import method
from strategies.schedulers.table import SCHEDULERS
from strategies.selectors import Selector
from strategies.selectors.table import SELECTORS
from strategies.weightings.table import WEIGHTINGS

Section = str | dict[str, Any]
Tree = dict[str, Any]
"""A part with every option written out: its name, its options, and the trees of the parts inside it.

Of a selector without options, such as chance, the name alone stands there.
"""

Builder = Callable[..., Part | None]

KINDS: Mapping[type[Part], tuple[Mapping[str, Builder], str]] = {
    Scheduler: (SCHEDULERS, "buffered"),
    Selector: (SELECTORS, "random"),
    Aggregator: (AGGREGATORS, "gradient"),
    Weighting: (WEIGHTINGS, "uniform"),
    ClientPolicy: (POLICIES, "plain"),
}
"""For each kind of part the table, and the name that is taken where none is given."""

_WEIGHTING = "weighting"
_IN_ORDER: dict[type[Part], str] = {Scheduler: "scheduler", Aggregator: "aggregator", ClientPolicy: "policy"}
"""The kinds that stand beside each other in a strategy, in an order in which each may ask for those before it."""

SECTIONS: Mapping[str, type[Part]] = {name: kind for kind, name in _IN_ORDER.items()} | {_WEIGHTING: Weighting}
"""The options of :func:`custom`, and the kind of part that each names."""


@method("free composition")
def custom(
    task_weights: TaskWeights | None = None,
    *,
    scheduler: Annotated[Section, Param("who trains next, and when the server aggregates")] = "buffered",
    aggregator: Annotated[Section, Param("how updates change the model")] = "gradient",
    weighting: Annotated[Section | None, Param("how much each update counts; uniform if not set")] = None,
    policy: Annotated[Section, Param("what each client is asked to do")] = "plain",
) -> FlowerStrategy:
    """Custom: the four parts by name, each with its own options."""
    trees = complete_parts(scheduler=scheduler, aggregator=aggregator, weighting=weighting, policy=policy)
    parts = _Composition(trees.get(_WEIGHTING))
    for kind, name in _IN_ORDER.items():
        parts.made[kind] = parts.build(kind, trees[name])
    return FlowerStrategy(parts.made[Scheduler], parts.made[Aggregator], parts.made[ClientPolicy], task_weights)


def complete_parts(
    *, scheduler: Section, aggregator: Section, weighting: Section | None, policy: Section
) -> dict[str, Tree]:
    """The options of :func:`custom` with those of every part written out; complete ones stay as they are.

    Raises
    ------
    ConfigError
        If a name or an option of a part is wrong; the message names the key, such as ``strategy.scheduler.q_min``.
    """
    trees = {
        "scheduler": complete_part(Scheduler, scheduler, "strategy.scheduler"),
        "aggregator": complete_part(Aggregator, aggregator, "strategy.aggregator"),
        "policy": complete_part(ClientPolicy, policy, "strategy.policy"),
    }
    if _asks_for_weights(trees["aggregator"]):
        trees[_WEIGHTING] = complete_part(Weighting, weighting or {}, "strategy.weighting")
    elif weighting is not None:
        name = trees["aggregator"]["name"]
        raise ConfigError(f"strategy.weighting is set, but the aggregator {name!r} weighs updates by itself")
    return trees


@functools.cache
def inner_parts(build: Builder) -> Mapping[str, type[Part]]:
    """The parts inside a part: parameters of its builder that are no options, and their kinds."""
    target = build.__init__ if inspect.isclass(build) else build
    hints = get_type_hints(target)
    named = (p for p in inspect.signature(build).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD)
    return {parameter.name: _kind(hints[parameter.name]) for parameter in named}


def _kind(annotation: Any) -> type[Part]:
    """The kind of part that an annotation names, such as ``Weighting`` or ``Selector | None``."""
    kind: type[Part] = next((one for one in get_args(annotation) if one is not NoneType), annotation)
    return kind


def beside(kind: type[Part], other: type[Part]) -> bool:
    """Whether a part of one kind that asks for another means the one that stands beside it, not one inside it."""
    return kind is not other and kind in _IN_ORDER and other in _IN_ORDER


def own_sections(kind: type[Part], build: Builder) -> list[str]:
    """The parts inside a part that are sections of it: neither the one weighting nor what stands beside it."""
    return [name for name, inner in inner_parts(build).items() if name != _WEIGHTING and not beside(kind, inner)]


def complete_part(kind: type[Part], given: Section, key: str = "strategy") -> Tree:
    """A part with every option written out, and those of the parts inside it.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    given
        The part's name, or a section with its name and options.
    key
        What the section is called, for messages.

    Raises
    ------
    ConfigError
        If a name or an option is wrong.
    """
    table, usual = KINDS[kind]
    options = {"name": given} if isinstance(given, str) else dict(given)
    name = options.pop("name", None)
    name = usual if name is None else name
    if not isinstance(name, str):
        raise ConfigError(f"{key}.name = {name!r}: should be text")
    build = choose(table, name, f"{key}.name")
    tree: Tree = {"name": name}
    for inner, inner_kind in inner_parts(build).items():
        if inner == _WEIGHTING or beside(kind, inner_kind):
            continue
        section: Any = options.pop(inner, None)
        section = {} if section is None else section
        if not isinstance(section, str | Mapping):
            raise ConfigError(f"{key}.{inner} = {section!r}: should be a part's name, or a section [{key}.{inner}]")
        part = complete_part(inner_kind, section if isinstance(section, str) else dict(section), f"{key}.{inner}")
        tree[inner] = part["name"] if inner_kind is Selector and len(part) == 1 else part
    return tree | check_options(build, options, key, name)


def _asks_for_weights(tree: Tree) -> bool:
    inside = inner_parts(KINDS[Aggregator][0][tree["name"]])
    held = [inner for inner, kind in inside.items() if kind is Aggregator]
    return _WEIGHTING in inside or any(_asks_for_weights(tree[inner]) for inner in held)


class _Composition:
    """Builds parts from trees; those that are made already may be asked for by later ones."""

    def __init__(self, weights: Tree | None) -> None:
        self.weights = weights
        self.made: dict[type[Part], Any] = {}

    def build(self, kind: type[Part], tree: Tree) -> Any:
        build = KINDS[kind][0][tree["name"]]
        inside = inner_parts(build)
        parts = [self._inner(kind, tree, name, inner) for name, inner in inside.items()]
        return build(*parts, **{key: value for key, value in tree.items() if key != "name" and key not in inside})

    def _inner(self, kind: type[Part], tree: Tree, name: str, inner: type[Part]) -> Any:
        if beside(kind, inner):
            return self.made[inner]
        subtree = self.weights if name == _WEIGHTING else tree[name]
        assert subtree is not None, "complete_parts makes one wherever weights are asked for"
        return self.build(inner, {"name": subtree} if isinstance(subtree, str) else subtree)
