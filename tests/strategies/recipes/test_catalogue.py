from __future__ import annotations

import inspect
import re

import pytest

from fedmtl.client_types import type_name
from fedmtl.components import options_of, summary_of
from fedmtl.errors import ConfigError
from strategies.recipes.catalogue import STRATEGIES, build_strategy
from strategies.recipes.papers import FAMILIES, composition, method_of
from strategies.task_weights import NTKMTLSR, LocalBalancing

every_strategy = pytest.mark.parametrize("name", STRATEGIES)
BALANCE_THEMSELVES = ("fsmgda", "fedcmoo")


@every_strategy
def test_a_strategy_trains_with_its_defaults_and_moves_the_model(toys, name: str) -> None:
    weights = LocalBalancing("equal") if name in BALANCE_THEMSELVES else NTKMTLSR()
    strategy = build_strategy(name, {}, weights)
    assert strategy.name == name
    assert strategy.task_weights is weights or name == "fedcmoo"
    fleet = toys.Fleet(12, lambda client, job: 1.0 + client % 5)
    loop, trace = toys.run(strategy, fleet, versions=20)
    assert loop.ended == "versions"
    # Over-commitment is part of Oort: the slowest of a round are late.
    assert all(rejection.reason.startswith("late") for rejection in trace.rejections)
    assert not trace.rejections or name == "oort"
    assert (strategy.model.vector - toys.start_model().vector).abs().max() > 0.01


@pytest.mark.parametrize("name", BALANCE_THEMSELVES)
def test_a_strategy_that_balances_tasks_itself_refuses_other_balancing(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' with balancing.name = 'ntkmtl-sr'.*set balancing.name = 'equal'"):
        build_strategy(name, {}, NTKMTLSR())


@every_strategy
def test_an_option_says_what_it_means_and_has_a_default(name: str) -> None:
    for option in options_of(STRATEGIES[name]):
        assert option.param.help, option.name
        assert option.param.source in {"ours", "paper", "second-hand"} or option.param.source.startswith(
            "authors' code"
        )
        assert option.default is not inspect.Parameter.empty
    assert summary_of(STRATEGIES[name])


@every_strategy
def test_a_strategy_names_its_family_and_its_paper(name: str) -> None:
    method = method_of(STRATEGIES[name])
    assert method.family in FAMILIES
    if method.family != "free composition":
        assert method.paper
    assert re.fullmatch(r"(\d{4}\.\d{4,5})?", method.arxiv)
    scheduler, *others = composition(STRATEGIES[name]()).split(" x ")
    assert scheduler
    assert len(others) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedsq", {}, "strategy.name = 'fedsq' is unknown.*'fedqs'"),
        ("fedqs", {"bufer_size": 3}, "bufer_size.*'buffer_size'"),
        ("fedqs", {"buffer_size": 0}, "buffer_size.*greater than or equal to 1"),
        ("fedqs", {"aggregation": "average"}, "aggregation.*'gradient' or 'model'"),
        ("fedqs", {"phi": -1.0}, "phi"),
        ("fedqs", {"phi": 101.0}, "phi.*less than or equal to 100"),
        ("fedqs", {"frequency_cap": 1001.0}, "frequency_cap.*less than or equal to 1000"),
        ("fedqs", {"buffer": "one_per_tick"}, "clock = 'tick'"),
        ("fedqs", {"rate_min": 0.3, "rate_max": 0.2}, "rate_min = 0.3 is above rate_max = 0.2"),
        ("fedqs", {"momentum_cap": 0.9}, "momentum must stay below 1"),
        ("fedbuff", {"concurrency": 0}, "concurrency"),
        ("fedasync", {"alpha": 1.5}, "alpha"),
        ("fedavg", {"buffer_size": 3}, "buffer_size is not a key of 'fedavg'"),
    ],
)
def test_a_wrong_name_or_option_is_a_configuration_error(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_strategy(name, options)


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "model"},
        {"phi": 0.1, "weight_base": "data_size"},
        {"feedback_speed": "ratio", "feedback_similarity": "(1+G)^2"},
        {"fbar": "all"},
        {"similarity": "cosine"},
        {"similarity": "euclidean"},
        {"similarity": "manhattan"},
        {"lg_source": "since_last"},
        {"momentum": False},
        {"clock": "tick"},
        {"clock": "tick", "buffer": "one_per_tick"},
        {"concurrency": 6},
    ],
    ids=str,
)
def test_every_switch_of_fedqs_does_something(toys, options: dict) -> None:
    """Eight similar and four odd clients of five speeds: with each switch the run ends at another model."""

    def run(options: dict):
        fleet = toys.Fleet(12, lambda client, job: 1.0 + client % 5)
        loop, trace = toys.run(build_strategy("fedqs", {"buffer_size": 4} | options), fleet, versions=40)
        types = {type_name(update.terms.get("client_type")) for update in trace.received}
        assert types > {""}
        return loop.strategy.model.vector

    assert not run(options).equal(run({}))
