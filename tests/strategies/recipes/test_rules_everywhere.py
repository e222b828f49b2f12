"""Robust rules with every strategy: each runs with each rule, or says why its step can have none."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmtl.components import options_of
from fedmtl.errors import ConfigError
from strategies.aggregators.robust import OPTIONS
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import STRATEGIES, build_strategy, builder, strategy_options

CLIENTS = 11
NO_MEAN = {
    "scaffold": "ControlVariates: what clients correct their steps by is a sum",
    "fedac": "ControlVariates: what clients correct their steps by is a sum",
    "fedasync": "Asynchronous: every update is a server step by itself",
    "safa": "CachedModels: its step is the mean of all clients' latest models",
    "fedat": "TierModels: its step is a mean of the tiers' models",
    "wkafl": "WKAFLAggregator: it picks, clips and weighs the updates",
    "ca2fl": "CalibratedAggregator: its step adds the last updates of all clients",
    "fedspeed": "DualAveraged: the mean dual variable that it adds",
    "fsmgda": "MinNormAggregator: it moves the backbone in a direction common to the tasks",
    "dfedsam": "Gossip: clients mix their models",
    "dimat": "Gossip: clients mix their models",
}
RULED = [name for name in STRATEGIES if name != "custom"]
WITH_MEAN = [name for name in RULED if name not in NO_MEAN]


def fleet(toys, liar: int | None = None) -> Any:
    """Clients that answer at four speeds; one of them may send 1e3 in every entry."""
    found = toys.Fleet(CLIENTS, lambda client, job: 1.0 + client % 4)
    honest = found._train

    def train(key):
        update = honest(key)
        if key.client == liar:
            update.delta.fill_(1e3)
        return update

    found._train = train
    return found


def trained(toys, strategy: Strategy, liar: int | None = None, versions: int = 20) -> Tensor:
    strategy.expect(CLIENTS)
    toys.run(strategy, fleet(toys, liar), versions=versions)
    return strategy.model.vector


@pytest.mark.parametrize("rule", OPTIONS)
@pytest.mark.parametrize("name", WITH_MEAN)
def test_a_strategy_whose_step_is_a_mean_runs_with_each_rule(toys, name: str, rule: str) -> None:
    options = {"aggregator": rule} | ({"malicious": 1} if rule in ("krum", "median") else {})
    own = {option.name for option in options_of(STRATEGIES[name])}
    if rule.startswith("dp-") and "weight_base" in own:
        options["weight_base"] = "uniform"
    elif rule.startswith("dp-") and name == "fedqueue":
        with pytest.raises(ConfigError, match="needs weight_base = 'uniform', not LocalSteps"):
            build_strategy(name, options)
        return
    # FedCompass's first steps are lone reports, one of each client.
    vector = trained(toys, build_strategy(name, options), versions=20 if name == "fedcompass" else 4)
    assert torch.isfinite(vector).all()
    assert not torch.equal(vector, toys.start_model().vector)


@pytest.mark.parametrize("name", NO_MEAN)
def test_a_strategy_whose_step_is_no_mean_says_so(name: str) -> None:
    for rule in OPTIONS:
        with pytest.raises(
            ConfigError, match=f"aggregator = '{rule}' with {NO_MEAN[name]}.*; take aggregator = 'mean'"
        ):
            build_strategy(name, {"aggregator": rule})
    assert build_strategy(name, {"aggregator": "mean"}).name == name


def test_parts_decide_and_not_names() -> None:
    assert build_strategy("fedac", {"correction": "off", "aggregator": "median"}).name == "fedac"
    free = {"aggregator": {"name": "robust"}, "scheduler": "asynchronous"}
    with pytest.raises(ConfigError, match="'median' with Asynchronous: every update is a server step by itself"):
        build_strategy("custom", free)
    with pytest.raises(ConfigError, match="'median' with ControlVariates"):
        build_strategy("custom", {"aggregator": {"name": "robust"}, "policy": "control-variates"})


LIED_TO: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("fedbuff", "fedqs", "fedavg", "fednova", "fedavgm", "fedadam", "fedcompass")},
    **{name: (name, {}) for name in ("fedavg-safl", "fedsgd", "defedavg", "fadas", "fedqueue")},
    "fedbuff, momentum": ("fedbuff", {"server_momentum": 0.5}),
    "fedqs, models": ("fedqs", {"aggregation": "model"}),
    "fedcompass, models": ("fedcompass", {"aggregation": "model"}),
    "fedcompass, momentum": ("fedcompass", {"variant": "momentum"}),
}


@pytest.mark.parametrize("case", LIED_TO)
def test_one_liar_ruins_a_mean_and_hardly_moves_a_rule(toys, case: str) -> None:
    name, options = LIED_TO[case]
    honest = trained(toys, build_strategy(name, options))
    assert (trained(toys, build_strategy(name, options), liar=4) - honest).abs().max() > 100.0
    aims = torch.stack([toys.aim(client) for client in range(CLIENTS) if client != 4])
    # Each step of a rule leads, in every entry, to between where two honest clients would have led it: models stay
    # between their aims, from wherever they start, and so do honest ones.
    width = (aims.max(0).values - aims.min(0).values).max()
    for rule in ("median", "trimmed-mean", "krum"):
        ruled = trained(toys, build_strategy(name, options | {"aggregator": rule, "malicious": 1}), liar=4)
        assert (ruled - honest).abs().max() < width


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fedbuff", {"aggregator": "dp-adaptive", "noise_multiplier": 0.05}),
        ("fedqs", {"aggregator": "median", "malicious": 1}),
        ("fedavg-safl", {"aggregator": "multikrum", "malicious": 1, "selected": 3}),
        ("fedadam", {"aggregator": "bulyan", "malicious": 1}),
    ],
)
@pytest.mark.parametrize("moment", [7, 41])
def test_a_run_with_a_rule_goes_on_to_the_same_bits(toys, name: str, options: dict[str, Any], moment: int) -> None:
    whole, seen = toys.run(build_strategy(name, options), fleet(toys), events=90)
    world = fleet(toys)
    first, _ = toys.run(build_strategy(name, options), world, events=moment, cut=True)
    rest, trace = toys.ready(build_strategy(name, options)), toys.Trace()
    second = Loop(rest, fleet(toys), [trace])
    second.load_state_dict(toys.through_json(first.state_dict()))
    second.run(lambda loop: "events" if len(trace.events) >= 90 - moment else None)
    assert len(seen.aggregations) > 5
    assert torch.equal(whole.strategy.model.vector, rest.model.vector)
    assert whole.strategy.model.version == rest.model.version


def test_a_rule_takes_the_place_of_fedqs_weights_and_the_run_says_so(toys, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        toys.ready(build_strategy("fedqs", {}))
        toys.ready(build_strategy("fedbuff", {"aggregator": "median"}))
    assert not caplog.messages
    with caplog.at_level(logging.WARNING):
        strategy = toys.ready(build_strategy("fedqs", {"aggregator": "median"}))
    assert caplog.messages == ["fedqs: aggregator = 'median' takes the place of the weights of FedQSWeights, too"]
    assert strategy.policy.name == "fedqs"


@pytest.mark.parametrize(("name", "weights"), [("mstep", "KAFLWeights"), ("heteroselect", "ScoreWeights")])
def test_so_it_does_with_all_weights_that_judge_updates(toys, caplog, name: str, weights: str) -> None:
    options = {"weight_base": "score"} if name == "heteroselect" else {}
    with caplog.at_level(logging.WARNING):
        toys.ready(build_strategy(name, options | {"aggregator": "median"}))
    assert any(f"takes the place of the weights of {weights}, too" in message for message in caplog.messages)


def test_an_unknown_rule_is_refused_with_those_that_there_are() -> None:
    for name in ("fedbuff", "wkafl"):
        with pytest.raises(
            ConfigError, match=r"strategy.aggregator = 'medan'.*'mean'.*'bulyan'.*did you mean 'median'"
        ):
            build_strategy(name, {"aggregator": "medan"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"malicious": 1}, "malicious = 1 is nothing to aggregator = 'mean'.*krum, multikrum"),
        ({"aggregator": "median", "trim": 0.1}, "trim = 0.1 is nothing to aggregator = 'median'.*trimmed-mean"),
        ({"aggregator": "krum", "selected": 3}, "selected = 3 is nothing to aggregator = 'krum'.*multikrum"),
        ({"aggregator": "dp-clip", "malicious": 1}, "malicious = 1 is nothing to aggregator = 'dp-clip'"),
        ({"aggregator": "bulyan", "noise_multiplier": 0.1}, "noise_multiplier = 0.1 .*dp-clip, dp-adaptive"),
    ],
)
def test_options_that_a_rule_does_not_have_are_refused(given: dict[str, Any], message: str) -> None:
    for name in ("fedavg", "fedbuff"):
        with pytest.raises(ConfigError, match=message):
            build_strategy(name, given)


def test_all_options_written_out_are_as_good_as_none() -> None:
    written = strategy_options("fedbuff", {})
    assert written["aggregator"] == "mean"
    assert strategy_options("fedbuff", written) == written
    build_strategy("fedbuff", written)
    ruled = {"aggregator": "krum", "malicious": 1}
    build_strategy("fedbuff", strategy_options("fedbuff", ruled))


def test_too_few_clients_are_refused_before_the_run_where_their_number_is_known() -> None:
    with pytest.raises(ConfigError, match=r"'bulyan' needs the updates of 11 clients in a step.* more than 10: "):
        build_strategy("fedbuff", {"aggregator": "bulyan", "malicious": 2})
    with pytest.raises(ConfigError, match=r"'median' needs the updates of 5 clients in a step.* more than 4: "):
        build_strategy("defedavg", {"aggregator": "median", "malicious": 2, "buffer_size": 4})
    wide = build_strategy("fedbuff", {"aggregator": "bulyan", "malicious": 2, "buffer_size": 20})
    wide.expect(11)
    with pytest.raises(ConfigError, match="more than 10: ask more of them"):
        wide.expect(10)
    rounds = build_strategy("fedavg", {"aggregator": "median", "malicious": 1})
    with pytest.raises(ConfigError, match=r"3 clients in a step.* more than 2: "):
        rounds.expect(2)


def test_a_lone_report_is_no_step_where_somebody_may_lie(toys) -> None:
    strategy = build_strategy("fedcompass", {"aggregator": "median", "malicious": 1})
    _, trace = toys.run(strategy, fleet(toys), versions=12)
    before = toys.start_model().vector
    lone = 0
    for aggregation, after in zip(trace.aggregations, trace.vectors, strict=True):
        if len(aggregation.updates) < 3:
            assert torch.equal(before, after)
            assert set(aggregation.weights) == {0.0}
            lone += aggregation.trigger == "single"
        else:
            assert not torch.equal(before, after)
        before = after
    assert 0 < lone < len(trace.aggregations)


@pytest.mark.parametrize("name", RULED)
def test_every_strategy_has_the_options_of_rules_and_its_own_words(name: str) -> None:
    names = [option.name for option in options_of(builder(name))]
    assert names[0] == "aggregator"
    assert {"malicious", "selected", "trim", "clipping_norm"} <= set(names)
    assert builder(name).__doc__ == STRATEGIES[name].__doc__
    assert builder("custom") is STRATEGIES["custom"]
