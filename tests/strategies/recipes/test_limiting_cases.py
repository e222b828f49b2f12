"""Where one method must be another: bit for bit, or but for rounding where the same is added and taken away.

`LIMITS` has, for every strategy, the settings that make it FedAvg in rounds once all clients are equally fast and all
of them are in every aggregation; `NO_LIMIT` says why a strategy has none. What only real clients show, as the trainer
does the work, is in tests/simulations/test_limits_on_digits.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from fedmtl.client_types import type_name
from fedmtl.protocol import GlobalModel
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import Adam, AMSGrad, ServerOptimizer
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import STRATEGIES, build_strategy
from strategies.schedulers import Synchronous
from strategies.weightings import Uniform

CLIENTS = 12
NEUTRAL = {"a": 0.0, "momentum": False, "feedback": False, "weight_base": "uniform"}
EVERYBODY = {"buffer_size": CLIENTS, "clock": "tick"}
# Adam's step is eta D / (sqrt(v) + eps): with eps beyond all entries of D, and eta = eps, it is D.
PLAIN_ADAM = {"beta1": 0.0, "beta2": 0.0, "server_rate": 1e8, "eps": 1e8}


@dataclass(frozen=True)
class Limit:
    """A strategy's settings, and the FedAvg that they make it.

    `away` are settings with which it is something else in the same world, or where speeds are `uneven`. `alike`: all
    clients have the same data.
    """

    options: Mapping[str, Any]
    weight_base: str = "uniform"
    exact: bool = True
    away: Mapping[str, Any] = field(default_factory=dict)
    clients: int = CLIENTS
    alike: bool = False
    uneven: bool = False


LIMITS = {
    # Buffered or grouped.
    "fedqs": Limit(NEUTRAL | EVERYBODY, away={"momentum": True}),
    "fedavg-safl": Limit(EVERYBODY, away={"buffer_size": 5}),
    "fedsgd": Limit(EVERYBODY, away={"buffer_size": 5}),
    "fedbuff": Limit(EVERYBODY, away={"server_momentum": 0.5}),
    "safa": Limit({"buffer_size": CLIENTS}, "data_size", exact=False, away={"weight_base": "uniform"}),
    "fedat": Limit({"tiers": 1, "proximal": 0.0}, "data_size", away={"proximal": 0.5}),
    # Its weights follow the distance of a client's model: they are equal only where the models are.
    "mstep": Limit(EVERYBODY, exact=False, alike=True, away={"buffer_size": 5}),
    "wkafl": Limit(
        EVERYBODY | {"momentum": 0.0, "norm_bound": 1e9, "cosine_bound": -1.0, "sharpness": 0.0},
        exact=False,
        away={"sharpness": 50.0},
    ),
    "fedac": Limit(EVERYBODY | PLAIN_ADAM | {"correction": "off"}, exact=False, away={"beta1": 0.6}),
    "fadas": Limit(EVERYBODY | PLAIN_ADAM, exact=False, away={"beta1": 0.9}),
    "ca2fl": Limit(EVERYBODY, exact=False, away={"buffer_size": 5}),
    "defedavg": Limit({"buffer_size": CLIENTS}, exact=False, away={"buffer_size": 5}),
    "fedqueue": Limit(
        {"first_steps": 2, "min_steps": 2, "max_steps": 2}, away={"min_steps": 1, "max_steps": 20}, uneven=True
    ),
    # Every arrival is a step of its own, so that only a single client is everybody.
    "fedasync": Limit({"alpha": 1.0, "rho": 0.0}, clients=1, away={"rho": 0.5}),
    # In rounds.
    "fedprox": Limit({"mu": 0.0}, "data_size", away={"mu": 0.5}),
    "scaffold": Limit({}, exact=False, alike=True, away={"server_rate": 0.5}),
    "fednova": Limit({}, "data_size", exact=False, away={"mu": 0.5}),
    "fedavgm": Limit({"beta": 0.0}, "data_size", away={"beta": 0.5}),
    "fedadam": Limit(PLAIN_ADAM | {"v0": "zero"}, "data_size", exact=False, away={"beta1": 0.9}),
    "fedyogi": Limit(PLAIN_ADAM | {"v0": "zero"}, "data_size", exact=False, away={"beta1": 0.9}),
    "oort": Limit(
        {"clients_per_round": CLIENTS, "over_commit": 1.0}, "data_size", exact=False, away={"clients_per_round": 5}
    ),
    "heteroselect": Limit(
        {"clients_per_round": CLIENTS, "mu": 0.0, "beta": 0.0}, "data_size", exact=False, away={"mu": 0.5}
    ),
    "fal": Limit({"rho": 0.0}, away={"server_rate": 0.5}),
    "curriculum": Limit(
        {"start": 1.0, "client_order": "none", "clients_per_round": None}, "data_size", away={"clients_per_round": 5}
    ),
    "custom": Limit(
        {"scheduler": "synchronous", "aggregator": "model", "weighting": "data-size"},
        "data_size",
        away={"weighting": "uniform"},
    ),
}
NO_LIMIT = {
    "ferret": "an update is restored from random coordinates; it is a FedAvg whose updates are compressed so, and "
    "test_compression.py holds it to that",
    "fedspeed": "the server adds the mean of the dual variables, sums of all updates so far, whatever lambda and rho",
    "fedgela": "no option gives the classifier back to the clients' training",
}
ON_DIGITS = {"dfedsam", "dimat", "fsmgda", "fedcmoo"}
"""The toy clients neither climb, merge models nor have gradients to weigh."""
APART = {"fedavg", "fedcompass"}
"""FedAvg itself; FedCompass begins with lone reports and has a test of its own here."""


def uneven(client: int, job: int) -> float:
    return 1.0 + client % 5 + 0.25 * (job % 2)


def even(client: int, job: int) -> float:
    return 2.0


def run(toys, name: str, options: Mapping[str, Any], duration: Callable[[int, int], float], *, clients: int = CLIENTS):
    strategy = build_strategy(name, options)
    _, trace = toys.run(strategy, toys.Fleet(clients, duration), versions=25)
    return trace


def same(first, second) -> bool:
    return len(first.vectors) == len(second.vectors) and all(map(torch.equal, first.vectors, second.vectors))


def close(first, second) -> bool:
    pairs = list(zip(first.vectors, second.vectors, strict=True))
    return all(torch.allclose(one, other, rtol=1e-6, atol=1e-6) for one, other in pairs)


def in_world_of(toys, limit: Limit, strategy: Strategy, duration: Callable[[int, int], float] = even):
    quirks = toys.Quirks(aim=lambda client: 0) if limit.alike else None
    return toys.run(strategy, toys.Fleet(limit.clients, duration, quirks), versions=15)[1]


def rounds(toys, limit: Limit):
    return in_world_of(toys, limit, build_strategy("fedavg", {"weight_base": limit.weight_base}))


def test_every_strategy_has_its_limit_or_a_reason_why_there_is_none() -> None:
    sets = [set(LIMITS), set(NO_LIMIT), ON_DIGITS, APART]
    assert set().union(*sets) == set(STRATEGIES)
    assert sum(map(len, sets)) == len(STRATEGIES)


@pytest.mark.parametrize("name", LIMITS)
def test_with_equal_speeds_and_everybody_in_every_aggregation_it_is_fedavg(toys, name: str) -> None:
    limit = LIMITS[name]
    found, fedavg = in_world_of(toys, limit, build_strategy(name, limit.options)), rounds(toys, limit)
    assert {tau for aggregation in found.aggregations for tau in aggregation.staleness} == {0}
    assert {len(aggregation.updates) for aggregation in found.aggregations} == {limit.clients}
    assert same(found, fedavg) if limit.exact else close(found, fedavg)


@pytest.mark.parametrize("name", LIMITS)
def test_and_with_other_settings_it_is_not(toys, name: str) -> None:
    limit = LIMITS[name]
    strategy = build_strategy(name, {**limit.options, **limit.away})
    assert not close(in_world_of(toys, limit, strategy, uneven if limit.uneven else even), rounds(toys, limit))


@pytest.mark.parametrize(
    ("name", "optimizer", "options"),
    [
        ("fadas", lambda: AMSGrad(0.01, 0.9, 0.99, 1e-8, v0=0.0, bias_correction=True), {}),
        ("fedac", lambda: Adam(0.01, 0.6, 0.9, 1e-8, v0=0.0, look_ahead=True), {"correction": "off"}),
    ],
)
def test_without_delay_an_adaptive_method_is_its_optimiser_in_rounds(
    toys, name: str, optimizer: Callable[[], ServerOptimizer], options: dict
) -> None:
    found = run(toys, name, EVERYBODY | {"server_rate": 0.01} | options, even)
    parent = Strategy(Synchronous(), Optimized(GradientAggregator(Uniform()), optimizer()))
    assert same(found, toys.run(parent, toys.Fleet(CLIENTS, even), versions=25)[1])


def test_fedcompass_is_fedavg_once_everybody_is_in_one_group(toys) -> None:
    """Each client's first report is a step of its own; the group that then forms is everybody's for good."""
    options = {"q_max": 10, "alpha": 1.0, "staleness": "constant"}
    compass = run(toys, "fedcompass", options, even, clients=4)
    first = next(
        index
        for index in range(len(compass.vectors))
        if {a.staleness for a in compass.aggregations[index:]} == {(0,) * 4}
    )
    assert first < 8
    fedavg = build_strategy("fedavg", {"weight_base": "uniform"})
    fedavg.initialise(GlobalModel(0, compass.vectors[first - 1], toys.LAYOUT))
    trace = toys.Trace()
    left = len(compass.vectors) - first
    Loop(fedavg, toys.Fleet(4, even), [trace]).run(lambda loop: "done" if len(trace.vectors) == left else None)
    assert all(map(torch.equal, compass.vectors[first:], trace.vectors))


def test_the_first_round_of_scaffold_is_fedavg_whatever_the_clients_have(toys) -> None:
    # With everybody in every round the corrections of these clients, whose curvatures are equal, cancel.
    options = {"weight_base": "uniform", "clients_per_round": 4}
    scaffold, fedavg = (run(toys, name, options, even) for name in ("scaffold", "fedavg"))
    torch.testing.assert_close(scaffold.vectors[0], fedavg.vectors[0], rtol=1e-6, atol=1e-6)
    assert not close(scaffold, fedavg)


@pytest.mark.parametrize(("aggregation", "plain"), [("gradient", "fedsgd"), ("model", "fedavg-safl")])
@pytest.mark.parametrize("clock", ["event", "tick"])
def test_neutral_fedqs_is_plain_semi_asynchronous_learning(toys, aggregation: str, plain: str, clock: str) -> None:
    common = {"buffer_size": 5, "clock": clock}
    fedqs = run(toys, "fedqs", NEUTRAL | common | {"aggregation": aggregation}, uneven)
    assert any(type_name(update.terms.get("client_type")) for update in fedqs.received)
    assert same(fedqs, run(toys, plain, common, uneven))
    assert not same(fedqs, run(toys, "fedqs", common | {"aggregation": aggregation}, uneven))


def test_neutral_fedqs_of_models_is_fedavg_as_well(toys) -> None:
    options = NEUTRAL | EVERYBODY | {"aggregation": "model"}
    assert same(run(toys, "fedavg", {"weight_base": "uniform"}, even), run(toys, "fedqs", options, even))


def test_fedbuff_without_discount_is_fedsgd(toys) -> None:
    fedbuff = run(toys, "fedbuff", {"buffer_size": 5, "staleness": "constant"}, uneven)
    assert same(fedbuff, run(toys, "fedsgd", {"buffer_size": 5}, uneven))
    assert not same(fedbuff, run(toys, "fedbuff", {"buffer_size": 5}, uneven))


def test_fedasync_with_alpha_zero_freezes_the_model(toys) -> None:
    frozen = run(toys, "fedasync", {"alpha": 0.0}, uneven)
    assert all(vector.equal(toys.start_model().vector) for vector in frozen.vectors)


def test_fedasync_discounts_the_staler_update_more(toys) -> None:
    trace = run(toys, "fedasync", {"alpha": 0.9}, uneven)
    weight = {a.staleness[0]: a.weights[0] for a in trace.aggregations}
    assert weight[0] == 0.9
    assert weight[3] == pytest.approx(0.45)
    ordered = [weight[tau] for tau in sorted(weight)]
    assert ordered == sorted(ordered, reverse=True)
