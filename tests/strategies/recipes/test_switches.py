"""The switches of the specification of the baselines (section 6): each is an option, with the values that it lists."""

from __future__ import annotations

from typing import Any

import pytest

from fedmtl.components import options_of
from strategies.recipes.catalogue import STRATEGIES, build_strategy

SWITCHES: list[tuple[str, str, str, Any, list[Any]]] = [
    # switch, strategy, option, recommended value, others
    ("staleness_fn", "fedasync", "staleness", "polynomial", ["constant", "hinge"]),
    ("staleness_fn", "fedbuff", "staleness", "polynomial", ["constant", "hinge"]),
    ("staleness_fn", "fedcompass", "staleness", "polynomial", ["constant", "hinge"]),
    ("fedbuff_norm", "fedbuff", "normalise", "none", ["average"]),
    ("fedbuff_server_opt", "fedbuff", "server_momentum", 0.0, [0.9]),
    ("fedat_local", "fedat", "local", "prox", ["l2_conv"]),
    ("safa_deprecated", "safa", "deprecated", "by_version", ["by_not_picked"]),
    ("mstep_start", "mstep", "start", "own_model", ["newest_global"]),
    ("fadas_rate", "fadas", "rate", "threshold", ["min"]),
    ("fedac_correction", "fedac", "correction", "on", ["off"]),
    ("defedavg_sampling", "defedavg", "sampling", "uniform", ["fifo"]),
    ("fedadam_v0", "fedadam", "v0", "eps_squared", ["zero"]),
    ("fedspeed_mix", "fedspeed", "mix", 1.0, [0.5]),
    ("fedgela_temperature", "fedgela", "temperature", 0.2, [1e-5]),
    ("hetero_parts", "heteroselect", "score_compression", False, [True]),
    ("hetero_parts", "heteroselect", "score_rate", False, [True]),
    ("hetero_parts", "heteroselect", "weight_base", "data_size", ["score"]),
    ("curriculum_order", "curriculum", "order", "easy_first", ["hard_first", "random"]),
    ("mix_order", "dfedsam", "mix_order", "after", ["before"]),
    # Of the two values of ferret_k the smaller is ours: 4096 is meant for models of 10^9 parameters.
    ("ferret_k", "ferret", "coordinates", 200, [4096]),
    ("dimat_bn_data", "dimat", "bn_data", "private", ["shared"]),
]
SYNCHRONOUS = ("fedavg", "fedprox", "fednova", "fedavgm", "fedadam", "oort", "heteroselect", "fedgela", "curriculum")
SEMI_ASYNCHRONOUS = ("fedavg-safl", "fedsgd", "fedqs", "fedbuff", "mstep", "fadas", "ca2fl", "defedavg")


def default(strategy: str, name: str) -> Any:
    return next(option.default for option in options_of(STRATEGIES[strategy]) if option.name == name)


@pytest.mark.parametrize(("switch", "strategy", "name", "usual", "others"), SWITCHES)
def test_a_switch_has_its_values_and_the_recommended_one_is_the_default(
    switch: str, strategy: str, name: str, usual: Any, others: list[Any]
) -> None:
    assert default(strategy, name) == usual
    for value in (usual, *others):
        assert build_strategy(strategy, {name: value}).name == strategy


def test_updates_count_the_same_in_semi_asynchronous_tables_and_by_examples_in_synchronous_ones() -> None:
    assert {default(name, "weight_base") for name in SYNCHRONOUS} == {"data_size"}
    assert {default(name, "weight_base") for name in SEMI_ASYNCHRONOUS} == {"uniform"}
    for name in (*SYNCHRONOUS, *SEMI_ASYNCHRONOUS):
        for value in ("uniform", "data_size"):
            build_strategy(name, {"weight_base": value})
