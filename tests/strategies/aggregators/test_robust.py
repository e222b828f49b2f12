"""Flower's rules as aggregators: they do what their papers say, and change nothing else."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel
from strategies.aggregators import GradientAggregator
from strategies.aggregators.robust import robust
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.core.part import prepare, restore, states_of
from strategies.recipes.catalogue import build_strategy
from strategies.weightings import DataSize, Uniform
from strategies.weightings.vectors import GivenScores

RULES = ("krum", "multikrum", "trimmed-mean", "median", "bulyan", "dp-clip", "dp-adaptive")


def step(toys, deltas: torch.Tensor, **fields) -> Step:
    updates = [toys.make_update(client, delta=delta, **fields) for client, delta in enumerate(deltas)]
    return Step(toys.start_model(), updates, {}, "all", frozenset(), Ledger())


def crowd(toys, seed: int = 0) -> torch.Tensor:
    """Eleven honest deltas around 1."""
    return 1.0 + 0.1 * torch.randn(11, toys.LAYOUT.size, generator=torch.Generator().manual_seed(seed))


def change(
    toys, aggregator: GradientAggregator, deltas: torch.Tensor, **fields
) -> tuple[torch.Tensor, tuple[float, ...]]:
    prepare([aggregator], toys.start_model(), seed=3)
    vector, weights = aggregator.aggregate(step(toys, deltas, **fields))
    return vector - toys.start_model().vector, weights


def test_krum_takes_one_honest_update_whole(toys) -> None:
    deltas = crowd(toys)
    deltas[4] = 1000.0
    moved, weights = change(toys, robust(Uniform(), rule="krum", malicious=1), deltas)
    chosen = weights.index(1.0)
    assert chosen != 4
    assert sum(weights) == 1.0
    # w + Delta - w rounds once for each of the two sums.
    torch.testing.assert_close(moved, deltas[chosen], rtol=0, atol=1e-6)


def test_multikrum_averages_the_selected_with_their_weights(toys) -> None:
    deltas = crowd(toys)
    deltas[4] = 1000.0
    moved, weights = change(toys, robust(DataSize(), rule="multikrum", malicious=1, selected=5), deltas)
    assert np.count_nonzero(weights) == 5
    assert weights[4] == 0.0
    assert sum(weights) == pytest.approx(1.0)
    torch.testing.assert_close(moved, torch.tensor(weights) @ deltas, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", ["krum", "multikrum"])
def test_updates_without_any_weight_may_be_picked(toys, rule: str) -> None:
    deltas = crowd(toys)
    deltas[4] = 1000.0
    weighting = GivenScores([float(client == 4) for client in range(len(deltas))])
    moved, weights = change(toys, robust(weighting, rule=rule, malicious=1), deltas)
    assert weights.index(1.0) != 4
    assert torch.isfinite(moved).all()


def test_without_a_backbone_the_weights_are_those_of_the_updates(toys) -> None:
    layout = ParameterLayout((), slice(0, 0), (slice(0, 4), slice(4, 9)), slice(9, 9))
    model = GlobalModel(0, torch.zeros(9), layout)
    updates = [toys.make_update(client, tasks=(min(client, 1),)) for client in range(4)]
    _, weights = robust(DataSize(), rule="median").aggregate(Step(model, updates, {}, "all", frozenset(), Ledger()))
    assert weights == tuple(n / 46 for n in (10, 11, 12, 13))


def test_median_and_trimmed_mean_are_per_entry(toys) -> None:
    deltas = crowd(toys)
    deltas[4], deltas[7] = 1000.0, -1000.0
    moved, _ = change(toys, robust(Uniform(), rule="median"), deltas)
    torch.testing.assert_close(moved, deltas.median(0).values, rtol=0, atol=1e-6)
    moved, _ = change(toys, robust(Uniform(), rule="trimmed-mean", trim=0.1), deltas)
    torch.testing.assert_close(moved, deltas.sort(0).values[1:-1].mean(0), rtol=0, atol=1e-6)


def test_bulyan_stays_with_the_crowd_and_declines_when_it_is_too_small(toys, caplog: pytest.LogCaptureFixture) -> None:
    deltas = crowd(toys)
    deltas[4], deltas[7] = 1000.0, -1000.0
    moved, _ = change(toys, robust(Uniform(), rule="bulyan", malicious=2), deltas)
    assert (moved - 1.0).abs().max() < 0.3
    with caplog.at_level(logging.WARNING):
        moved, weights = change(toys, robust(Uniform(), rule="bulyan", malicious=2), deltas[:10])
    assert moved.count_nonzero() == 0
    assert weights == (0.0,) * 10
    assert "needs at least 11 clients, has 10" in caplog.text


def test_with_too_few_clients_to_bear_the_liars_there_is_no_step_and_it_is_said_once(
    toys, caplog: pytest.LogCaptureFixture
) -> None:
    aggregator = robust(Uniform(), rule="krum", malicious=1)
    with caplog.at_level(logging.WARNING):
        moved, weights = change(toys, aggregator, crowd(toys)[:5])
        assert moved.abs().max() > 0.5
        assert not caplog.messages
        for _ in range(2):
            moved, weights = change(toys, aggregator, crowd(toys)[:4])
            assert moved.count_nonzero() == 0
            assert weights == (0.0,) * 4
    assert caplog.messages == ["krum needs at least 5 clients, has 4: no step"]


def test_where_nobody_is_taken_to_lie_few_clients_are_a_step_and_it_is_said_that_they_are(
    toys, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        moved, _ = change(toys, robust(Uniform(), rule="median"), crowd(toys)[:2])
    torch.testing.assert_close(moved, crowd(toys)[:2].mean(0), rtol=0, atol=1e-6)
    assert caplog.messages == ["median needs at least 3 clients, has 2: nobody is protected"]


@pytest.mark.parametrize(("rule", "least"), [("median", 5), ("trimmed-mean", 5), ("krum", 7), ("bulyan", 11)])
def test_a_rule_bears_as_many_liars_as_it_says_among_as_few_clients_as_it_needs(toys, rule: str, least: int) -> None:
    aggregator = robust(Uniform(), rule=rule, malicious=2)
    assert aggregator.rule.least == least
    deltas = crowd(toys)[:least].clone()
    honest = deltas[2:]
    for lie in (1e3, -1e3):
        deltas[0], deltas[1] = lie, lie
        moved, _ = change(toys, aggregator, deltas)
        # Within the honest ones in every entry; w + Delta - w rounds once for each of the two sums.
        assert (moved >= honest.min(0).values - 1e-6).all()
        assert (moved <= honest.max(0).values + 1e-6).all()
    moved, _ = change(toys, aggregator, deltas[1:])
    assert moved.count_nonzero() == 0


def test_clipping_bounds_each_update_and_without_noise_and_bound_it_is_the_mean(toys) -> None:
    deltas = crowd(toys)
    moved, weights = change(toys, robust(Uniform(), rule="dp-clip", clipping_norm=1e6), deltas)
    torch.testing.assert_close(moved, deltas.mean(0), rtol=0, atol=1e-6)
    assert weights == pytest.approx([1 / 11] * 11)
    deltas[4] = 1000.0
    moved, _ = change(toys, robust(Uniform(), rule="dp-clip", clipping_norm=0.5), deltas)
    assert 0.45 < torch.linalg.vector_norm(moved) <= 0.5 + 1e-6


@pytest.mark.parametrize("first", [0.05, 200.0])
def test_the_adaptive_norm_comes_to_the_quantile_of_the_deltas_norms(toys, first: float) -> None:
    deltas = crowd(toys) * torch.arange(1.0, 12.0)[:, None]
    norms = torch.linalg.vector_norm(deltas, dim=1).sort().values
    aggregator = robust(Uniform(), rule="dp-adaptive", clipping_norm=first, quantile=0.3, clipping_rate=0.5)
    for _ in range(60):
        moved, _ = change(toys, aggregator, deltas)
    # The third of 11 is below the quantile 0.3, the fourth above it; a step of S is a factor of exp(0.5 * 0.7) at most.
    assert norms[2] / 1.5 < aggregator.rule.clipping_norm < norms[3] * 1.5
    assert torch.linalg.vector_norm(moved) <= aggregator.rule.clipping_norm * 1.5
    again = robust(Uniform(), rule="dp-adaptive")
    restore({"aggregator": again}, states_of({"aggregator": aggregator}))
    assert again.rule.clipping_norm == aggregator.rule.clipping_norm


def test_noise_that_few_updates_cannot_have_is_no_step(toys, caplog: pytest.LogCaptureFixture) -> None:
    moved, _ = change(toys, robust(Uniform(), rule="dp-adaptive", noise_multiplier=2.0), crowd(toys))
    assert moved.count_nonzero() == 0
    assert caplog.messages == [
        "dp-adaptive: statistics of batch norm are averaged without noise; for privacy train without batch norm",
        "dp-adaptive needs at least 21 clients, has 11: no step",
    ]
    options = {"aggregator": "dp-adaptive", "noise_multiplier": 2.0, "weight_base": "uniform"}
    strategy = build_strategy("fedavg", options)
    strategy.expect(21)
    with pytest.raises(ConfigError, match=r"needs the updates of 21 clients in a step.* more than 20"):
        strategy.expect(20)


def test_a_delta_of_zero_can_be_clipped(toys) -> None:
    moved, _ = change(toys, robust(Uniform(), rule="dp-clip"), torch.zeros(3, toys.LAYOUT.size))
    assert moved.abs().max() < 1e-15


def test_noise_has_its_deviation_follows_from_the_seed_and_leaves_numpy_alone(toys) -> None:
    def noisy(version: int) -> torch.Tensor:
        aggregator = robust(Uniform(), rule="dp-clip", clipping_norm=2.0, noise_multiplier=3.0)
        prepare([aggregator], toys.start_model(), seed=3)
        updates = [toys.make_update(c, delta=torch.zeros(toys.LAYOUT.size)) for c in range(4)]
        before = toys.start_model(version)
        return aggregator.aggregate(Step(before, updates, {}, "all", frozenset(), Ledger()))[0] - before.vector

    state = np.random.get_state()[1].copy()  # noqa: NPY002
    draws = torch.stack([noisy(version) for version in range(60)])
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(draws[7], noisy(7))
    # 540 draws of deviation 3 * 2 / 4: the estimate is within 4 of its own deviations, 1.5 / sqrt(2 * 540).
    assert draws.std().item() == pytest.approx(1.5, abs=4 * 1.5 / (2 * 540) ** 0.5)


@pytest.mark.parametrize("rule", ["krum", "median", "trimmed-mean", "multikrum"])
def test_a_head_is_its_owners(toys, rule: str) -> None:
    deltas = crowd(toys)
    updates = [toys.make_update(c, delta=d, tasks=(0,) if c < 10 else (0, 1)) for c, d in enumerate(deltas)]
    before = toys.start_model()
    aggregator = robust(Uniform(), rule=rule)
    vector, _ = aggregator.aggregate(Step(before, updates, {}, "all", frozenset(), Ledger()))
    head = toys.LAYOUT.heads[1]
    torch.testing.assert_close((vector - before.vector)[head], deltas[10][head], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_runs_as_an_option_of_fedavg_to_the_same_bits_twice(toys, rule: str) -> None:
    noise = {"noise_multiplier": 0.1} if rule.startswith("dp-") else {}

    def run() -> torch.Tensor:
        strategy = build_strategy("fedavg", {"aggregator": rule, "weight_base": "uniform", **noise})
        loop, trace = toys.run(strategy, toys.Fleet(12, lambda client, job: 1.0 + client % 3), versions=5)
        assert len(trace.aggregations) == 5
        return loop.strategy.model.vector

    assert torch.equal(run(), run())


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs weight_base = 'uniform', not DataSize"):
        build_strategy("fedavg", {"aggregator": "dp-clip"})
    with pytest.raises(ConfigError, match=r"'bulyan' needs the updates of 11 clients in a step.* more than 10: "):
        build_strategy("fedavg", {"aggregator": "bulyan", "malicious": 2, "clients_per_round": 10})
    with pytest.raises(ConfigError, match=r"'multikrum' needs the updates of 12 clients in a step.* more than 11: "):
        build_strategy("fedavg", {"aggregator": "multikrum", "selected": 10, "malicious": 2, "clients_per_round": 11})
