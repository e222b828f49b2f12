"""What a recipe says of itself: the family and the paper of its method, in one line above it::

    @method("semi-asynchronous", "Federated Learning with Buffered Asynchronous Aggregation", arxiv="2106.06639")
    def fedbuff(task_weights=None, *, buffer_size: BufferSize = 10, ...) -> FlowerStrategy:

The parts are not written down: they are read off the strategy that the recipe composes (:func:`composition`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from strategies.core.part import Part
from strategies.core.strategy import Strategy

Family = Literal["synchronous", "asynchronous", "semi-asynchronous", "decentralised", "free composition"]
"""Who waits for whom: everybody, nobody, some for some, or there is no server."""

FAMILIES: tuple[Family, ...] = get_args(Family)

AnyRecipe = TypeVar("AnyRecipe", bound=Callable[..., Any])
_ATTRIBUTE = "__method__"


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the literature.

    Attributes
    ----------
    family
        Who waits for whom.
    paper
        The paper's title; empty for what is ours.
    arxiv
        Its number on arXiv, such as ``"2106.06639"``; empty if it is not there.

    Examples
    --------
    What FedBuff's recipe declares, and the parts, which are read off its strategy:

    >>> from strategies.recipes.fedbuff import fedbuff
    >>> from strategies.recipes.papers import composition, method_of
    >>> method = method_of(fedbuff)
    >>> method.family, method.arxiv
    ('semi-asynchronous', '2106.06639')
    >>> method.citation
    '"Federated Learning with Buffered Asynchronous Aggregation" (arXiv 2106.06639)'
    >>> composition(fedbuff())
    'Buffered x Gradient(Discounted(Uniform)) x Plain'
    """

    family: Family
    paper: str = ""
    arxiv: str = ""

    @property
    def citation(self) -> str:
        """Title and number, or that it is ours."""
        number = f" (arXiv {self.arxiv})" if self.arxiv else ""
        return f'"{self.paper}"{number}' if self.paper else "no paper: ours"


def method(family: Family, paper: str = "", *, arxiv: str = "") -> Callable[[AnyRecipe], AnyRecipe]:
    """Declare a recipe's method; the recipe itself stays as it is."""

    def declare(recipe: AnyRecipe) -> AnyRecipe:
        setattr(recipe, _ATTRIBUTE, Method(family, paper, arxiv))
        return recipe

    return declare


def method_of(recipe: Callable[..., Any]) -> Method:
    """What a recipe declared; one that declared nothing composes freely."""
    found = getattr(recipe, _ATTRIBUTE, None)
    return found if isinstance(found, Method) else Method("free composition")


def composition(strategy: Strategy) -> str:
    """The parts of a strategy by their names, each with the parts inside it in brackets.

    For example ``"Buffered x Gradient(Discounted(Uniform)) x Plain"``. A part that several others hold is named in each
    of them, and the scheduler, aggregator and policy themselves only beside each other. Task weights are left out, for
    an experiment chooses them apart.
    """
    beside = (strategy.scheduler, strategy.aggregator, strategy.policy)
    return " x ".join(_named(part, beside) for part in beside)


def _named(part: Part, beside: Collection[Part]) -> str:
    held = [inner for _, inner in part.held_parts() if not any(inner is other for other in beside)]
    inside = ", ".join(_named(inner, beside) for inner in held)
    return type(part).__name__.removesuffix("Aggregator") + (f"({inside})" if inside else "")
