"""Where one method must be another, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from strategies.catalogue import build_strategy

NEUTRAL = {"a": 0.0, "momentum": False, "feedback": False, "weight_base": "uniform"}


def uneven(client: int, job: int) -> float:
    return 1.0 + client % 5 + 0.25 * (job % 2)


def even(client: int, job: int) -> float:
    return 2.0


def run(toys, name: str, options: dict, duration: Callable[[int, int], float], *, clients: int = 12):
    strategy = build_strategy(name, options)
    _, trace = toys.run(strategy, toys.Fleet(clients, duration), versions=25)
    return trace


def same(first, second) -> bool:
    return len(first.vectors) == len(second.vectors) and all(map(torch.equal, first.vectors, second.vectors))


@pytest.mark.parametrize(("aggregation", "plain"), [("gradient", "fedsgd"), ("model", "fedavg-safl")])
@pytest.mark.parametrize("clock", ["event", "tick"])
def test_neutral_fedqs_is_plain_semi_asynchronous_learning(toys, aggregation: str, plain: str, clock: str) -> None:
    common = {"buffer_size": 5, "clock": clock}
    fedqs = run(toys, "fedqs", NEUTRAL | common | {"aggregation": aggregation}, uneven)
    assert any(update.client_type for update in fedqs.received)
    assert same(fedqs, run(toys, plain, common, uneven))
    assert not same(fedqs, run(toys, "fedqs", common | {"aggregation": aggregation}, uneven))


@pytest.mark.parametrize("name", ["fedsgd", "fedavg-safl", "fedbuff"])
def test_equal_speeds_and_a_buffer_of_everybody_are_synchronous_rounds(toys, name: str) -> None:
    rounds = run(toys, "fedavg", {"weight_base": "uniform"}, even)
    buffered = run(toys, name, {"buffer_size": 12, "clock": "tick"}, even)
    assert {tau for aggregation in buffered.aggregations for tau in aggregation.staleness} == {0}
    assert same(rounds, buffered)


@pytest.mark.parametrize("aggregation", ["gradient", "model"])
def test_so_is_neutral_fedqs(toys, aggregation: str) -> None:
    options = NEUTRAL | {"buffer_size": 12, "clock": "tick", "aggregation": aggregation}
    assert same(run(toys, "fedavg", {"weight_base": "uniform"}, even), run(toys, "fedqs", options, even))


def test_fedbuff_without_discount_is_fedsgd(toys) -> None:
    fedbuff = run(toys, "fedbuff", {"buffer_size": 5, "staleness": "constant"}, uneven)
    assert same(fedbuff, run(toys, "fedsgd", {"buffer_size": 5}, uneven))
    assert not same(fedbuff, run(toys, "fedbuff", {"buffer_size": 5}, uneven))


def test_fedasync_with_alpha_one_and_one_client_is_fedavg(toys) -> None:
    fedasync = run(toys, "fedasync", {"alpha": 1.0, "rho": 0.0}, uneven, clients=1)
    assert same(fedasync, run(toys, "fedavg", {}, uneven, clients=1))


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
