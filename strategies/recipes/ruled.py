"""A rule in the place of the mean, with any recipe: the option `aggregator`, and those of the rules.

A recipe composes a method and says nothing of rules; whether one can stand in the place of its mean is declared by the
parts that it is made of (:attr:`strategies.core.part.Part.no_rule`). A recipe that has an option `aggregator` itself,
as free composition does, keeps it.
"""

# Annotations are looked up by name if they are texts, and what `ruled` writes into one is a local variable.

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param, options_of
from strategies.aggregators.robust import FlowerRule, RuleName, refuse_idle
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy

Combining = Annotated[
    Literal["mean", RuleName],
    Param("what is made of the updates of a step: their mean, or Flower's rule of that name"),
]


@functools.cache
def ruled(recipe: Callable[..., FlowerStrategy]) -> Callable[..., FlowerStrategy]:
    """The recipe with the options of a rule beside its own; as it is if it has an option `aggregator` itself.

    Examples
    --------
    >>> from strategies.recipes.fedbuff import fedbuff
    >>> from strategies.recipes.papers import composition
    >>> from strategies.recipes.ruled import ruled
    >>> composition(ruled(fedbuff)(aggregator="trimmed-mean", malicious=1))
    'Buffered x Gradient(Discounted(Uniform), FlowerRule) x Plain'
    """
    if any(option.name == "aggregator" for option in options_of(recipe)):
        return recipe
    parts = OptionsOf(recipe, FlowerRule)

    def build(
        task_weights: TaskWeights | None = None,
        *,
        aggregator: Combining = "mean",
        **options: Annotated[Any, parts],
    ) -> FlowerStrategy:
        own, of_rule = parts.divide(options)
        strategy = recipe(task_weights, **own)
        if aggregator == "mean":
            refuse_idle("mean", of_rule)
        else:
            strategy.aggregate_by(FlowerRule(aggregator, **of_rule))
        return strategy

    build.__name__, build.__doc__ = recipe.__name__, recipe.__doc__
    return build
