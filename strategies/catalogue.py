"""The strategies by their configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedmtl.components import check_options, choose
from strategies.ca2fl import ca2fl
from strategies.curriculum import curriculum
from strategies.custom import complete_parts, custom
from strategies.defedavg import defedavg
from strategies.dfedsam import dfedsam
from strategies.dimat import dimat
from strategies.fadas import fadas
from strategies.fal import fal
from strategies.fedac import fedac
from strategies.fedadam import fedadam
from strategies.fedasync import fedasync
from strategies.fedat import fedat
from strategies.fedavg import fedavg, fedavg_safl
from strategies.fedavgm import fedavgm
from strategies.fedbuff import fedbuff
from strategies.fedcmoo import fedcmoo
from strategies.fedcompass import fedcompass
from strategies.fedgela import fedgela
from strategies.fednova import fednova
from strategies.fedprox import fedprox
from strategies.fedqs import fedqs
from strategies.fedqueue import fedqueue
from strategies.fedsgd import fedsgd
from strategies.fedspeed import fedspeed
from strategies.fedyogi import fedyogi
from strategies.ferret import ferret
from strategies.fsmgda import fsmgda
from strategies.heteroselect import heteroselect
from strategies.mstep import mstep
from strategies.oort import oort
from strategies.parts import TaskWeights
from strategies.profiles import in_profile, training_in_profile
from strategies.safa import safa
from strategies.scaffold import scaffold
from strategies.strategy import Strategy
from strategies.wkafl import wkafl

Recipe = Callable[..., Strategy]
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


def strategy_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the strategy of that name, checked, with every default written out.

    Raises
    ------
    ConfigError
        If the name or an option is unknown, or a value is wrong.
    """
    recipe = choose(STRATEGIES, name, "strategy.name")
    checked = check_options(recipe, in_profile(recipe, options), "strategy", name)
    return dict(complete_parts(**checked)) if recipe is custom else checked


def training_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile among these options of a strategy says of the section [training]; mostly nothing."""
    return training_in_profile(choose(STRATEGIES, name, "strategy.name"), options)


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
    return choose(STRATEGIES, name, "strategy.name")(task_weights, **strategy_options(name, options))
