"""The strategies by their configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedmtl.components import check_options, choose
from fedmtl.errors import ConfigError
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.ca2fl import ca2fl
from strategies.recipes.curriculum import curriculum
from strategies.recipes.custom import complete_parts, custom
from strategies.recipes.defedavg import defedavg
from strategies.recipes.dfedsam import dfedsam
from strategies.recipes.dimat import dimat
from strategies.recipes.fadas import fadas
from strategies.recipes.fal import fal
from strategies.recipes.fedac import fedac
from strategies.recipes.fedadam import fedadam
from strategies.recipes.fedasync import fedasync
from strategies.recipes.fedat import fedat
from strategies.recipes.fedavg import fedavg, fedavg_safl
from strategies.recipes.fedavgm import fedavgm
from strategies.recipes.fedbuff import fedbuff
from strategies.recipes.fedcmoo import fedcmoo
from strategies.recipes.fedcompass import fedcompass
from strategies.recipes.fedgela import fedgela
from strategies.recipes.fednova import fednova
from strategies.recipes.fedprox import fedprox
from strategies.recipes.fedqs import fedqs
from strategies.recipes.fedqueue import fedqueue
from strategies.recipes.fedsgd import fedsgd
from strategies.recipes.fedspeed import fedspeed
from strategies.recipes.fedyogi import fedyogi
from strategies.recipes.ferret import ferret
from strategies.recipes.fsmgda import fsmgda
from strategies.recipes.heteroselect import heteroselect
from strategies.recipes.mstep import mstep
from strategies.recipes.oort import oort
from strategies.recipes.ruled import ruled
from strategies.recipes.safa import safa
from strategies.recipes.scaffold import scaffold
from strategies.recipes.wkafl import wkafl

Recipe = Callable[..., FlowerStrategy]
"""Composes a strategy from the task weights and its own options (keyword-only)."""

STRATEGIES: dict[str, Recipe] = {
    "fedqs": fedqs,
    "fedavg": fedavg,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "fednova": fednova,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "oort": oort,
    "heteroselect": heteroselect,
    "fedavg-safl": fedavg_safl,
    "fedsgd": fedsgd,
    "fedbuff": fedbuff,
    "fedasync": fedasync,
    "fedcompass": fedcompass,
    "safa": safa,
    "fedat": fedat,
    "mstep": mstep,
    "wkafl": wkafl,
    "fedac": fedac,
    "fadas": fadas,
    "ca2fl": ca2fl,
    "defedavg": defedavg,
    "fedqueue": fedqueue,
    "fedspeed": fedspeed,
    "fal": fal,
    "curriculum": curriculum,
    "fsmgda": fsmgda,
    "fedcmoo": fedcmoo,
    "dfedsam": dfedsam,
    "custom": custom,
    "ferret": ferret,
    "fedgela": fedgela,
    "dimat": dimat,
}


_REMOVED = {
    "fedqs": {
        "profile": "is no longer an option: leave it out. In a file that spells out every option, these say all, and "
        "'paper' was the default; what 'ref' stood for is a preset, fedmtl run --preset fedqs-reference"
    }
}
"""Options that strategies once had: what became of them."""


def builder(name: str) -> Recipe:
    """The recipe of that name with the options of a rule in place of the mean (:mod:`strategies.recipes.ruled`).

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    return ruled(choose(STRATEGIES, name, "strategy.name"))


def strategy_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the strategy of that name, checked, with every default written out.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or a value is wrong.
    """
    recipe = builder(name)
    for option in options.keys() & _REMOVED.get(name, {}).keys():
        raise ConfigError(f"strategy.{option} = {options[option]!r} {_REMOVED[name][option]}")
    checked = check_options(recipe, options, "strategy", name)
    return dict(complete_parts(**checked)) if recipe is custom else checked


def build_strategy(name: str, options: Mapping[str, Any], task_weights: TaskWeights | None = None) -> FlowerStrategy:
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
    return builder(name)(task_weights, **strategy_options(name, options))
