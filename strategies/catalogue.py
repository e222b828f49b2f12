"""The strategies by their configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedmtl.components import check_options, choose
from strategies.fadas import fadas
from strategies.fedac import fedac
from strategies.fal import fal
from strategies.fedasync import fedasync
from strategies.fedavg import fedavg, fedavg_safl
from strategies.fedbuff import fedbuff
from strategies.fedqs import fedqs
from strategies.fedsgd import fedsgd
from strategies.mstep import mstep
from strategies.fedspeed import fedspeed
from strategies.parts import TaskWeights
from strategies.strategy import Strategy

Recipe = Callable[..., Strategy]
"""Composes a strategy from the task weights and its own options (keyword-only)."""

STRATEGIES: dict[str, Recipe] = {
    "fedqs": fedqs,
    "fedavg": fedavg,
    "fedavg-safl": fedavg_safl,
    "fedsgd": fedsgd,
    "fedbuff": fedbuff,
    "fedasync": fedasync,
    "mstep": mstep,
    "fedac": fedac,
    "fadas": fadas,
    "fedspeed": fedspeed,
    "fal": fal,
}


def build_strategy(name: str, options: Mapping[str, Any], task_weights: TaskWeights | None = None) -> Strategy:
    """The strategy of that name.

    Parameters
    ----------
    name
        One of :data:`STRATEGIES`.
    options
        Options that were set; the others have their defaults.
    task_weights
        How tasks are weighted; equally if not given.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or a value is wrong or does not fit the others.
    """
    recipe = choose(STRATEGIES, name, "strategy.name")
    return recipe(task_weights, **check_options(recipe, options, "strategy", name))
