"""Free compositions: parts by name, with nested options, and combinations that are refused.

Long because the combinations that are refused are listed, each with its reason.
"""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from fedmtl.components import options_of, summary_of
from fedmtl.errors import ConfigError
from strategies.aggregators.table import AGGREGATORS
from strategies.core.strategy import Strategy
from strategies.policies.table import POLICIES
from strategies.recipes.catalogue import build_strategy, strategy_options
from strategies.recipes.custom import KINDS
from strategies.recipes.papers import composition
from strategies.schedulers.table import SCHEDULERS
from strategies.task_weights import build_task_weights
from strategies.weightings.table import WEIGHTINGS

PARTS = [(name, build) for table, _ in KINDS.values() for name, build in table.items()]


def uneven(client: int, job: int) -> float:
    return 1.0 + client % 5 + 0.25 * (job % 2)


def run(toys, name: str, options: dict, *, versions: int = 25):
    _, trace = toys.run(build_strategy(name, options), toys.Fleet(8, uneven), versions=versions)
    return trace


@pytest.mark.parametrize(("name", "build"), PARTS, ids=[name for name, _ in PARTS])
def test_a_part_says_what_it_is_and_each_option_has_a_meaning_and_a_default(name: str, build) -> None:
    assert summary_of(build)
    for option in options_of(build):
        assert option.param.help
        assert not option.required


def test_parts_nest_as_they_do_in_python() -> None:
    strategy = build_strategy(
        "custom",
        {
            "scheduler": {"name": "compass", "q_max": 20},
            "aggregator": {"name": "singles-apart", "group": {"name": "optimised", "base": "model"}},
            "weighting": {"name": "staleness", "a": 1.0, "base": {"name": "share-of-all", "base": "fedqs"}},
            "policy": "fedqs",
        },
    )
    weights = "Discounted(ShareOfAll(FedQSWeights(Uniform)))"
    assert composition(strategy) == (
        f"Compass x LoneReports(Gradient({weights}), Optimized(Model({weights}), SGD)) x FedQSPolicy"
    )


@pytest.mark.parametrize(
    ("recipe", "options", "parts"),
    [
        ("fedbuff", {"buffer_size": 3}, {"scheduler": {"buffer_size": 3}, "weighting": "staleness"}),
        (
            "fedcompass",
            {"q_max": 10},
            {
                "scheduler": {"name": "compass", "q_max": 10},
                "weighting": {"name": "staleness", "factor": 0.9, "base": "share-of-all"},
            },
        ),
        (
            "fedcompass",
            {"q_max": 10, "variant": "momentum", "aggregation": "model", "weights": "size"},
            {
                "scheduler": {"name": "compass", "q_max": 10},
                "aggregator": {
                    "name": "singles-apart",
                    "single": "model",
                    "group": {"name": "optimised", "momentum": 0.9, "base": "model"},
                },
                "weighting": {
                    "name": "staleness",
                    "factor": 0.9,
                    "base": {"name": "share-of-all", "by": "examples", "base": "data-size"},
                },
            },
        ),
        ("fedavg", {}, {"scheduler": "synchronous", "aggregator": "model", "weighting": "data-size"}),
        (
            "fedasync",
            {"rho": 0.1},
            {
                "scheduler": "asynchronous",
                "aggregator": "model",
                "weighting": {"name": "staleness", "factor": 0.9},
                "policy": {"name": "proximal", "mu": 0.1},
            },
        ),
        ("fedqs", {}, {"weighting": "fedqs", "policy": "fedqs"}),
        ("safa", {}, {"scheduler": "lag-tolerant", "aggregator": "cached-models"}),
        (
            "fedat",
            {"tiers": 2},
            {
                "scheduler": {"name": "tiered", "tiers": 2},
                "aggregator": "tier-models",
                "weighting": "data-size",
                "policy": "proximal",
            },
        ),
        ("defedavg", {"buffer_size": 3}, {"scheduler": {"name": "pooled", "buffer_size": 3}}),
        ("ca2fl", {}, {"aggregator": "calibrated"}),
        (
            "fedqueue",
            {"aggregation": "gradient"},
            {"scheduler": "queued", "weighting": "local-steps", "policy": "scaled-rate"},
        ),
        (
            "fedspeed",
            {"lam": 0.2},
            {
                "scheduler": "synchronous",
                "aggregator": "dual-averaged",
                "policy": {"name": "dual-corrected", "lam": 0.2},
            },
        ),
        ("fsmgda", {}, {"scheduler": "synchronous", "aggregator": "min-norm", "policy": "tasks-apart"}),
        (
            "curriculum",
            {"clients_per_round": 3},
            {
                "scheduler": {"name": "synchronous", "clients_per_round": 3, "selection": "curriculum"},
                "aggregator": "model",
                "weighting": "data-size",
                "policy": "curriculum",
            },
        ),
        (
            "oort",
            {"clients_per_round": 3, "exploration": 0.5, "round_threshold": 50.0},
            {
                "scheduler": {
                    "name": "synchronous",
                    "clients_per_round": 3,
                    "over_commit": 1.1,
                    "selection": {"name": "oort", "exploration": 0.5, "round_threshold": 50.0},
                },
                "aggregator": "model",
                "weighting": "data-size",
                "policy": "loss-reports",
            },
        ),
        (
            "dfedsam",
            {},
            {
                "scheduler": "synchronous",
                "aggregator": "gossip",
                "policy": {"name": "sharpness-aware", "rho": 0.01},
            },
        ),
    ],
)
def test_a_named_method_is_what_its_parts_are(toys, recipe: str, options: dict, parts: dict) -> None:
    named, composed = run(toys, recipe, options), run(toys, "custom", parts)
    assert len(named.vectors) == len(composed.vectors)
    assert all(map(torch.equal, named.vectors, composed.vectors))


def test_fedcmoo_is_its_task_weights_over_any_composition(toys) -> None:
    found = []
    for name, options, weights in (
        ("fedcmoo", {"rank": 2}, None),
        ("custom", {"scheduler": "synchronous"}, build_task_weights("fedcmoo", {"rank": 2})),
    ):
        strategy = build_strategy(name, options, weights)
        _, trace = toys.run(strategy, toys.Fleet(8, uneven), versions=10)
        assert strategy.policy.name == "compressed-jacobian"
        found.append(trace.vectors)
    assert all(map(torch.equal, *found))


def test_fedcmoos_task_weights_refuse_clients_that_have_something_else_to_do() -> None:
    with pytest.raises(ConfigError, match="'fedcmoo' with Proximal"):
        build_strategy("fedprox", {}, build_task_weights("fedcmoo", {}))
    with pytest.raises(ConfigError, match="'fsmgda' with FedCMOOWeights"):
        build_strategy("fsmgda", {}, build_task_weights("fedcmoo", {}))


def test_written_out_options_are_complete_and_say_the_same() -> None:
    given = {"scheduler": {"name": "compass"}, "weighting": {"name": "staleness", "base": "share-of-all"}}
    complete = strategy_options("custom", given)
    assert complete["scheduler"]["latency_factor"] == 1.5
    assert complete["weighting"]["base"]["base"] == {"name": "uniform"}
    assert complete["policy"] == {"name": "plain"}
    assert strategy_options("custom", complete) == complete


def test_a_selection_is_written_out_with_its_options_and_chance_as_its_name() -> None:
    chance = strategy_options("custom", {"scheduler": "synchronous"})
    assert chance["scheduler"]["selection"] == "random"
    assert strategy_options("custom", chance) == chance
    oort = strategy_options("custom", {"scheduler": {"concurrency": 3, "selection": "oort"}})
    assert oort["scheduler"]["selection"]["exploration"] == 0.9
    assert strategy_options("custom", oort) == oort


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "compas"}, r"strategy.scheduler.name = 'compas' is unknown \(did you mean 'compass'\?\)"),
        ({"scheduler": {"name": "compass", "q_mx": 3}}, r"strategy.scheduler.q_mx is not a key of 'compass'.*'q_max'"),
        ({"scheduler": {"name": "compass", "q_max": 0}}, r"strategy.scheduler.q_max = 0: should be .* 1"),
        ({"scheduler": {"name": "compass", "q_max": 5, "q_min": 6}}, "q_min = 6 is above q_max = 5"),
        (
            {"weighting": {"name": "staleness", "base": "unifrom"}},
            r"strategy.weighting.base.name = 'unifrom' is unknow",
        ),
        (
            {"weighting": {"name": "staleness", "base": {"name": "fedqs", "phi": -1}}},
            r"strategy.weighting.base.phi = -1: should be greater than 0",
        ),
        ({"weighting": {"name": "staleness", "base": 3}}, r"strategy.weighting.base = 3: should be a part's name"),
        ({"policy": {"name": 3}}, r"strategy.policy.name = 3: should be text"),
        ({"scheduler": 3}, r"strategy.scheduler = 3: should be"),
        ({"schedular": "compass"}, r"strategy.schedular is not a key of 'custom' \(did you mean 'scheduler'\?\)"),
        ({"aggregator": "wkafl", "weighting": "uniform"}, r"'wkafl' weighs updates by itself"),
        ({"weighting": "fedqs"}, r"FedQSWeights .* needs 'feedback'.*take FedQSPolicy"),
        ({"aggregator": "singles-apart"}, r"LoneReports .* needs 'groups'"),
        ({"aggregator": "tier-models"}, r"TierModels with Buffered: it needs 'tiers'.*scheduler.name = 'tiered'"),
        ({"policy": "scaled-rate"}, r"ScaledRate with Buffered: it needs 'step-budgets'.*'queued'"),
        ({"aggregator": "min-norm"}, r"MinNormAggregator .* needs 'task-changes'.*policy = 'tasks-apart'"),
        ({"aggregator": "dual-averaged"}, r"DualAveraged .* needs 'duals'.*policy = 'dual-corrected'"),
        ({"policy": "dual-corrected"}, r"DualCorrected .* needs 'duals-mean'.*aggregator = 'dual-averaged'"),
        ({"scheduler": {"name": "synchronous", "selection": "curriculum"}}, "PacedSelector .* set clients_per_round"),
        ({"scheduler": {"name": "buffered", "selection": "curriculum"}}, "PacedSelector .* set concurrency"),
        ({"scheduler": {"name": "buffered", "selection": "oorts"}}, r"selection.name = 'oorts' is .* mean 'oort'"),
        (
            {"scheduler": {"name": "buffered", "selection": {"exploration": 0.5}}},
            r"selection.exploration is not a key of",
        ),
        (
            {"scheduler": {"name": "buffered", "selection": {"name": "oort", "cut_off": 2}}},
            r"strategy.scheduler.selection.cut_off = 2: should be .* 1",
        ),
        (
            {"scheduler": {"name": "buffered", "selection": 3}},
            "strategy.scheduler.selection = 3: should be a part's name",
        ),
        ({"aggregator": "gossip"}, r"Gossip with Buffered .*: it needs 'fresh-updates'"),
        ({"aggregator": "cached-models"}, r"CachedModels with Buffered .*: it needs 'distinct-clients'"),
        *(
            (
                {"scheduler": "synchronous", "aggregator": {"name": holder, "base": "gossip"}},
                r" holds Gossip, which has a model for each client",
            )
            for holder in ("optimised", "statistics")
        ),
        (
            {"scheduler": "synchronous", "aggregator": {"name": "gossip", "steps": 0}},
            r"Gossip with .* needs 'merging', .*nobody's models would be mixed",
        ),
        (
            {"aggregator": {"name": "statistics", "rule": "replace_single"}},
            r"Statistics with Buffered .* needs 'groups'",
        ),
        (
            {"scheduler": "synchronous", "policy": "merging"},
            r"Merging with GradientAggregator: it needs 'neigh",
        ),
        (
            {"scheduler": {"name": "buffered", "max_staleness": 2}, "policy": "control-variates"},
            r"ControlVariates .* needs 'every-update'",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_with_its_nested_key_or_the_reason(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_strategy("custom", options)


def composed(options: dict) -> Strategy | str:
    """The strategy, or why there is none."""
    try:
        return build_strategy("custom", options)
    except ConfigError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("aggregator", [name for name in AGGREGATORS if name != "robust"])
def test_any_combination_works_or_is_refused_with_a_reason(toys, scheduler: str, aggregator: str) -> None:
    weightings = [{"weighting": name} for name in WEIGHTINGS] if aggregator in ("gradient", "model") else [{}]
    for policy, weighting in itertools.product(POLICIES, weightings):
        options = {"scheduler": scheduler, "aggregator": aggregator, "policy": policy} | weighting
        strategy = composed(options)
        if isinstance(strategy, str):
            assert re.search("needs '[a-z-]+', which none of them has; .+", strategy), options
            continue
        _, trace = toys.run(strategy, toys.Fleet(4, uneven), versions=4)
        assert len(trace.vectors) >= 4, options
        assert all(torch.isfinite(vector).all() for vector in trace.vectors), options
