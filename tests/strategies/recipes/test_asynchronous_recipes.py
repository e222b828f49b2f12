"""The asynchronous and semi-asynchronous methods as wholes, over fleets in which everything goes wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import Arrival, GlobalModel, TrainSettings
from fedmtl.randomness import derive_seed
from fedmtl.state import split
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import SGD, AMSGrad
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.core.update_checks import Asked
from strategies.recipes.catalogue import build_strategy
from strategies.recipes.fadas import DelayAdaptiveRate
from strategies.schedulers import Synchronous
from strategies.weightings import Uniform

SMALL = {"buffer_size": 3}
RECIPES: dict[str, tuple[str, dict]] = {
    "fedasync": ("fedasync", {}),
    "fedasync, hinge": ("fedasync", {"staleness": "hinge", "a": 10.0, "b": 6.0}),
    "fedbuff": ("fedbuff", SMALL),
    "fedbuff, as in production": (
        "fedbuff",
        SMALL | {"server_rate": 0.7, "server_momentum": 0.9, "normalise": "average", "max_staleness": 3},
    ),
    "safa": ("safa", SMALL | {"lag": 2}),
    "safa, half, time limit": ("safa", SMALL | {"cache": "half", "round_limit": 4.0, "weight_base": "uniform"}),
    "safa, by not picked": ("safa", SMALL | {"lag": 1, "deprecated": "by_not_picked"}),
    "fedat": ("fedat", {"tiers": 3}),
    "mstep": ("mstep", SMALL),
    "wkafl": ("wkafl", SMALL | {"late_from": 5}),
    "fedac": ("fedac", SMALL),
    "fadas": ("fadas", SMALL),
    "ca2fl": ("ca2fl", SMALL),
    "ca2fl, on disk": ("ca2fl", SMALL | {"cache": "disk"}),
    "defedavg": ("defedavg", SMALL),
    "fedqueue": ("fedqueue", {"round_seconds": 6.0, "first_steps": 2}),
}
FAULTS = ("nan", "version", "failure", "duplicate", "stranger")

every_recipe = pytest.mark.parametrize("recipe", RECIPES)
worlds = st.fixed_dictionaries(
    {
        "clients": st.integers(1, 8),
        "seed": st.integers(0, 2**32),
        "losses": st.sampled_from([0, 100]),
        "faults": st.sampled_from([0, 200]),
        "disjoint": st.booleans(),
    }
)


def make(recipe: str) -> Strategy:
    name, options = RECIPES[recipe]
    return build_strategy(name, options)


def make_fleet(toys, world: dict):
    seed = world["seed"]

    def draw(purpose: str, client: int, job: int, below: int) -> int:
        return derive_seed(seed, purpose, client, job) % below

    def outage(client: int, job: int) -> tuple[float, float | None] | None:
        if draw("lost", client, job, 1000) >= world["losses"]:
            return None
        return 0.5 * draw("after", client, job, 5), None if draw("for good", client, job, 4) == 0 else 2.5

    def fault(client: int, job: int) -> str:
        hit = draw("fault", client, job, 1000) < world["faults"]
        return FAULTS[draw("which", client, job, len(FAULTS))] if hit else ""

    tasks: Callable[[int], tuple[int, ...]] = (
        (lambda c: ((0, 1), (0,), (1,))[c % 3]) if world["disjoint"] else (lambda c: (0, 1))
    )
    return toys.Fleet(world["clients"], lambda c, j: 1.0 + draw("duration", c, 0, 9), toys.Quirks(outage, fault, tasks))


@every_recipe
@settings(max_examples=4, deadline=None)  # test_random_fleets.py tries every strategy, too
@given(world=worlds)
def test_each_upload_counts_once_or_is_rejected_and_the_model_stays_finite(toys, recipe: str, world: dict) -> None:
    loop, trace = toys.run(make(recipe), make_fleet(toys, world), events=120)
    settled = [u for a in trace.aggregations for u in a.updates] + [r.update for r in trace.rejections]
    settled += loop.strategy.unsettled()
    assert Counter(map(id, settled)) == Counter(map(id, trace.received))
    assert all(rejection.reason for rejection in trace.rejections)
    assert all(torch.isfinite(vector).all() for vector in trace.vectors)
    for aggregation in trace.aggregations:
        assert min(aggregation.staleness) >= 0
        assert min(aggregation.weights) >= 0.0
        # Below 1 where they fall with staleness and for SAFA, whose caches have the rest; above it if normalised.
        assert sum(aggregation.weights) <= 1.0 + 1e-9 or "production" in recipe


@every_recipe
@settings(max_examples=3, deadline=None)  # and cuts it, too
@given(world=worlds, moment=st.integers(1, 80))
def test_a_run_cut_at_any_event_goes_on_to_the_same_bits(toys, recipe: str, world: dict, moment: int) -> None:
    whole, seen = toys.run(make(recipe), make_fleet(toys, world), events=100)
    moment = min(moment, len(seen.events))
    first, _ = toys.run(make(recipe), make_fleet(toys, world), events=moment, cut=True)
    rest = make(recipe)
    rest.initialise(toys.start_model())
    trace = toys.Trace()
    second = Loop(rest, make_fleet(toys, world), [trace])
    second.load_state_dict(toys.through_json(first.state_dict()))
    left = len(seen.events) - moment
    second.run(lambda loop: "events" if len(trace.events) >= left else None)
    assert torch.equal(rest.model.vector, whole.strategy.model.vector)
    (plain, tensors), (wanted, wanted_tensors) = split(second.state_dict()), split(whole.state_dict())
    assert json.dumps(plain) == json.dumps(wanted)
    assert all(torch.equal(tensors[key].nan_to_num(), wanted_tensors[key].nan_to_num()) for key in wanted_tensors)


def uneven(client: int, job: int) -> float:
    return 1.0 + client % 5 + 0.25 * (job % 2)


def even(client: int, job: int) -> float:
    return 2.0


def run(toys, name: str, options: dict, duration=uneven, *, clients: int = 12, versions: int = 25):
    _, trace = toys.run(build_strategy(name, options), toys.Fleet(clients, duration), versions=versions)
    return trace


def same(first, second) -> bool:
    return len(first.vectors) == len(second.vectors) and all(map(torch.equal, first.vectors, second.vectors))


def close(first, second) -> bool:
    pairs = list(zip(first.vectors, second.vectors, strict=True))
    return bool(pairs) and all(torch.allclose(a, b, atol=1e-6, rtol=1e-6) for a, b in pairs)


def rounds(toys, **options):
    return run(toys, "fedavg", {"weight_base": "uniform"} | options, even)


def fresh(toys, name: str, **options):
    """The method where everybody's update is in every aggregation: orders of one instant start from one model."""
    trace = run(toys, name, {"buffer_size": 12} | options, even)
    assert {tau for aggregation in trace.aggregations for tau in aggregation.staleness} == {0}
    return trace


def test_defedavg_drawing_everybody_is_fedavg(toys) -> None:
    assert close(fresh(toys, "defedavg"), rounds(toys))


def test_safa_picking_everybody_is_fedavg_by_data_size(toys) -> None:
    assert close(fresh(toys, "safa"), rounds(toys, weight_base="data_size"))


def test_fedat_with_one_tier_is_fedavg_bit_for_bit(toys) -> None:
    for weight_base in ("uniform", "data_size"):
        fedat = run(toys, "fedat", {"tiers": 1, "proximal": 0.0, "weight_base": weight_base})
        assert same(fedat, run(toys, "fedavg", {"weight_base": weight_base}))


def test_fedbuff_without_momentum_or_normalisation_is_its_parent_bit_for_bit(toys) -> None:
    plain = run(toys, "fedbuff", {"buffer_size": 5})
    assert same(plain, run(toys, "fedbuff", {"buffer_size": 5, "server_momentum": 0.0, "normalise": "none"}))
    assert not same(plain, run(toys, "fedbuff", {"buffer_size": 5, "server_momentum": 0.5}))
    assert not same(plain, run(toys, "fedbuff", {"buffer_size": 5, "normalise": "average"}))


def test_an_optimizer_of_rate_one_without_momentum_changes_no_bit(toys) -> None:
    def trained(aggregator) -> torch.Tensor:
        strategy = Strategy(Synchronous(), aggregator)
        toys.run(strategy, toys.Fleet(12, uneven), versions=20)
        return strategy.model.vector

    assert trained(Optimized(GradientAggregator(Uniform()), SGD())).equal(trained(GradientAggregator(Uniform())))


def test_fadas_without_delay_is_amsgrad_in_rounds(toys) -> None:
    """One client: its every update is fresh."""
    fadas = run(toys, "fadas", {"buffer_size": 1, "server_rate": 0.01}, clients=1)
    optimizer = AMSGrad(0.01, 0.9, 0.99, 1e-8, v0=0.0, bias_correction=True)
    strategy = Strategy(Synchronous(), Optimized(GradientAggregator(Uniform()), optimizer))
    _, trace = toys.run(strategy, toys.Fleet(1, uneven), versions=25)
    assert same(fadas, trace)


def test_fedac_without_correction_sends_no_variates(toys) -> None:
    on, off = run(toys, "fedac", SMALL), run(toys, "fedac", SMALL | {"correction": "off"})
    assert all("variate_change" in update.vectors for update in on.received)
    assert not any(update.vectors for update in off.received)


def test_mstep_clients_go_on_from_their_own_models_until_there_is_a_newer_one(toys) -> None:
    """One client, buffer of 3: the toy's pull of 0.1 is repeated from where the last job ended."""
    own = run(toys, "mstep", {"buffer_size": 3}, clients=1, versions=1)
    newest = run(toys, "mstep", {"buffer_size": 3, "start": "newest_global"}, clients=1, versions=1)
    first = newest.received[0].delta
    assert [u.delta.equal(first) for u in newest.received] == [True] * 3
    for update, share in zip(own.received, (1.0, 1.9, 2.71), strict=True):
        torch.testing.assert_close(update.delta, share * first)


@pytest.mark.parametrize(
    ("staleness", "options", "rate"),
    [
        ((0, 1), {}, 0.1),
        ((0, 2), {}, 0.05),
        ((10,), {}, 0.01),
        ((0, 0), {"tau_c": 0}, 0.1),
        ((1, 4), {"tau_c": None}, 0.1),
        ((1, 20), {"tau_c": None}, 0.05),
        ((0,), {"tau_c": None}, 0.1),
    ],
)
def test_fadas_adapts_its_rate_to_the_largest_staleness(toys, staleness, options, rate: float) -> None:
    updates = [toys.make_update(client, version=30 - tau) for client, tau in enumerate(staleness)]
    assert DelayAdaptiveRate(0.1, options.get("tau_c", 1))(updates, 30) == pytest.approx(rate)


def test_fedbuff_golden_step(toys) -> None:
    """K = 2, deltas 2 and 4, tau 0 and 3: w moves by (2 + 4 * 0.5) / 2 = 2; a third upload is not consumed early."""
    strategy = toys.ready(build_strategy("fedbuff", {"buffer_size": 2}))
    strategy._model = GlobalModel(3, toys.start_model().vector, toys.LAYOUT)
    strategy.scheduler.prepare(strategy.model, 0)
    strategy.orders(strategy.begin(range(3), 0.0).decision.assignments)
    strategy._jobs._out[1] = Asked(0, 0)
    strategy._jobs._statistics.hold(0, strategy.model.vector[toys.LAYOUT.buffers])
    deltas = {0: (3, 2.0), 1: (0, 4.0), 2: (3, 50.0)}
    steps = []
    for client, (version, delta) in deltas.items():
        update = toys.make_update(client, version=version, delta=torch.full((9,), delta))
        before = strategy.model.vector
        decision = strategy.on_event(Arrival(1.0, update)).decision
        if decision.aggregate:
            strategy.aggregate(decision, 1.0)
        steps.append((strategy.model.vector - before)[0].item())
    assert steps == pytest.approx([0.0, 2.0, 0.0])
    assert strategy.waiting == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedbuff", {"server_momentum": 1.0}, "server_momentum"),
        ("fedbuff", {"normalise": "max"}, "'none' or 'average'"),
        ("safa", {"lag": -1}, "lag"),
        ("safa", {"cache": "double"}, "cache"),
        ("fedat", {"tiers": 0}, "tiers"),
        ("mstep", {"start": "own"}, "'own_model' or 'newest_global'"),
        ("wkafl", {"cosine_bound": 1.0}, "cosine_bound"),
        ("fedac", {"floor": 0.0}, "floor"),
        ("fadas", {"eps": 0.0}, "eps"),
        ("defedavg", {"sampling": "random"}, "'uniform' or 'fifo'"),
        ("fedqueue", {"min_steps": 9, "max_steps": 3}, "min_steps = 9 and max_steps = 3"),
    ],
)
def test_a_wrong_option_is_a_configuration_error(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_strategy(name, options)


def test_fedqueue_lowers_the_rate_of_who_takes_more_steps(toys) -> None:
    strategy = build_strategy("fedqueue", {"round_seconds": 20.0, "first_steps": 2})
    strategy.initialise(toys.start_model(), TrainSettings(learning_rate=0.4))
    trace = toys.Trace()
    orders = []
    fleet = toys.Fleet(3, lambda client, job: 2.0 * (client + 1))
    send = fleet.send
    fleet.send = lambda given: (orders.extend(given), send(given))[1]
    Loop(strategy, fleet, [trace]).run(lambda loop: "versions" if loop.strategy.model.version >= 2 else None)
    second = {order.client: order for order in orders if order.job == 1}
    steps = [second[client].steps for client in range(3)]
    assert steps == [20, 10, 6]
    rates = [second[client].settings.learning_rate for client in range(3)]
    assert rates == pytest.approx([0.4 * 6 / s for s in steps])
