"""FedCompass's aggregation: coefficients, forms, variants, limiting cases."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel
from strategies.aggregators import BatchNormStatistics, GradientAggregator
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.recipes.catalogue import build_strategy
from strategies.weightings import Capped, DataSize, Discounted, ShareOfAll, Uniform, hinge, polynomial


def uneven(client: int, job: int) -> float:
    return 1.0 + client % 5 + 0.25 * (job % 3)


def even(client: int, job: int) -> float:
    return 2.0


def compass(toys, options: dict, duration=uneven, *, clients: int = 8, events: int = 120):
    strategy = build_strategy("fedcompass", {"q_max": 10} | options)
    _, trace = toys.run(strategy, toys.Fleet(clients, duration), events=events)
    return trace


def same(first, second) -> bool:
    return len(first.vectors) == len(second.vectors) and all(map(torch.equal, first.vectors, second.vectors))


def test_the_golden_coefficients(toys) -> None:
    """alpha = 0.9, a = 0.5, p = 1/2: staleness 0 and 1, a client twice among them."""
    ledger = Ledger()
    ledger.met(range(2))
    rule = Discounted(ShareOfAll(Uniform()), a=0.5, factor=0.9)
    updates = [toys.make_update(1, 1, 2), toys.make_update(1, 2, 3), toys.make_update(0, 2, 3)]
    assert rule.weights(updates, 3, ledger) == pytest.approx((0.318198, 0.45, 0.45), abs=5e-7)
    assert sum(Capped(rule).weights(updates, 3, ledger)) == pytest.approx(1.0)
    assert Capped(rule).weights(updates[1:], 3, ledger) == rule.weights(updates[1:], 3, ledger)


@pytest.mark.parametrize("aggregation", ["gradient", "model"])
@pytest.mark.parametrize(
    ("pace", "last"),
    [({}, (0.318198, 0.45)), ({(1, 2): 17.8 / 55}, (0.318198, 0.45, 0.45))],
    ids=["trace", "variant"],
)
def test_the_golden_trace_steps_with_these_coefficients(toys, aggregation: str, pace: dict, last: tuple) -> None:
    """A takes 0.1 s a step; B takes 0.12 s, then 11 s for 66 steps, and in the variant 8.9 s for its next 55."""
    pace = {(1, 0): 0.24, (1, 1): 22 / 66, (1, 2): 1000.0} | pace
    trace = compass(
        toys,
        {"q_min": 20, "q_max": 100, "latency_factor": 1.2, "aggregation": aggregation},
        lambda client, job: pace.get((client, job), 0.2),
        clients=2,
        events=7,
    )
    steps = trace.aggregations[:4]
    total = sum(last)
    if aggregation == "model" and total > 1:  # the current model must not weigh less than nothing
        last = tuple(weight / total for weight in last)
    wanted = [(0.45,), (0.318198,), (0.318198,), last]
    assert [a.weights for a in steps] == [pytest.approx(weights, abs=5e-7) for weights in wanted]
    w = [toys.start_model().vector, *trace.vectors]
    for t, step in enumerate(steps):
        moved = w[t].clone()
        for p, update in zip(step.weights, step.updates, strict=True):
            pull = w[update.base_version] - w[t] if aggregation == "model" else 0.0
            moved += p * (update.delta + pull)
        part = toys.LAYOUT.trainable  # statistics are averaged in either form
        torch.testing.assert_close(w[t + 1][part], moved[part])


def test_staleness_functions_of_the_golden_table() -> None:
    assert [polynomial(0.5)(u) for u in (0, 1, 3)] == pytest.approx([1, 0.707107, 0.5], abs=5e-7)
    assert [hinge(0.5, 4)(u) for u in (4, 5, 10)] == pytest.approx([1, 0.666667, 0.25], abs=5e-7)


def test_shares_are_of_all_clients_or_of_all_examples(toys) -> None:
    ledger = Ledger()
    ledger.met(range(4))
    updates = [toys.make_update(client, examples=n) for client, n in enumerate((10, 30))]
    for update in updates:
        ledger.received(update)
    assert ShareOfAll(Uniform()).weights(updates[:1], 0, ledger) == (0.25,)
    # Two clients have not reported and are taken to have 20 examples each.
    assert ShareOfAll(DataSize(), by="examples").weights(updates, 0, ledger) == pytest.approx((10 / 80, 30 / 80))
    assert ShareOfAll(DataSize(), by="examples").weights(updates[1:], 0, ledger) == pytest.approx((30 / 80,))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), alpha=st.floats(0.1, 1.0), staleness=st.sampled_from(["constant", "polynomial"]))
def test_coefficients_sum_to_at_most_alpha_times_the_share(toys, seed: int, alpha: float, staleness: str) -> None:
    options = {"alpha": alpha, "staleness": staleness}
    trace = compass(toys, options, lambda client, job: 1.0 + (seed * 7 + client * 13 + job * 29) % 11)
    for aggregation in trace.aggregations:
        assert math.fsum(aggregation.weights) <= alpha * len(aggregation.updates) / 8 + 1e-12
        assert min(aggregation.weights) > 0


@pytest.mark.parametrize("options", [{}, {"weights": "size"}], ids=str)
def test_equal_clients_come_to_synchronous_rounds(toys, options: dict) -> None:
    """After everybody's first report and the first group, with alpha = 1, each step is one of FedAvg."""
    # As many examples each: FedCompass's 1/m and FedAvg's weights are then the same.
    base = {"alpha": 1.0, "staleness": "constant"} | options
    trace = compass(toys, base, even, clients=4, events=4 * 6)
    start = 5
    for k in range(start, len(trace.vectors)):
        assert trace.aggregations[k].staleness == (0, 0, 0, 0)
        rounds = build_strategy("fedavg", {"weight_base": "uniform" if not options else "data_size"})
        rounds.initialise(GlobalModel(0, trace.vectors[k - 1], toys.LAYOUT))
        updates = trace.aggregations[k].updates
        ledger = Ledger()
        fresh = [toys.make_update(u.client, delta=u.delta, examples=u.examples) for u in updates]
        vector, _ = rounds.aggregator.aggregate(Step(rounds.model, fresh, {}, "all", frozenset(), ledger))
        # Shares are multiplied up from one client's to all; that rounds differently for examples.
        torch.testing.assert_close(trace.vectors[k], vector, rtol=1e-6, atol=1e-7)
        assert options or torch.equal(trace.vectors[k], vector)
    assert len(trace.vectors) > start + 1


def test_without_staleness_both_forms_agree(toys) -> None:
    """One client alone always starts from the newest model."""
    gradient, model = (compass(toys, {"aggregation": form}, clients=1, events=20) for form in ("gradient", "model"))
    assert same(gradient, model)
    assert not same(compass(toys, {}), compass(toys, {"aggregation": "model"}))


def test_the_model_form_never_weighs_the_current_model_negatively(toys) -> None:
    """A client's late report is applied together with its next, with alpha = 1 (the variant of the golden trace)."""
    pace = {(1, 0): 0.24, (1, 1): 22 / 66, (1, 2): 17.8 / 55}
    trace = compass(
        toys,
        {"aggregation": "model", "alpha": 1.0, "staleness": "constant", "latency_factor": 1.2, "q_max": 100},
        lambda client, job: pace.get((client, job), 0.2),
        clients=2,
    )
    assert max(len(a.updates) for a in trace.aggregations) > 2
    assert all(math.fsum(a.weights) <= 1.0 + 1e-12 for a in trace.aggregations)


def test_momentum_zero_is_the_plain_rule(toys) -> None:
    plain = compass(toys, {})
    assert same(compass(toys, {"variant": "momentum", "server_momentum": 0.0}), plain)
    assert not same(compass(toys, {"variant": "momentum"}), plain)


def test_momentum_is_for_groups_and_bypassed_by_single_reports(toys) -> None:
    options = {"variant": "momentum", "server_momentum": 0.5, "staleness": "constant", "alpha": 1.0}
    trace = compass(toys, options, clients=3, events=60)
    w, v = toys.start_model().vector, torch.zeros(toys.LAYOUT.trainable.stop)
    for aggregation, vector in zip(trace.aggregations, trace.vectors, strict=True):
        D = sum(p * update.delta for p, update in zip(aggregation.weights, aggregation.updates, strict=True))
        part = toys.LAYOUT.trainable
        if aggregation.trigger == "single":
            w = w + D
        else:
            v = 0.5 * v + D[part]
            w = w + D
            w[part] = w[part] - D[part] + v
        torch.testing.assert_close(vector[part], w[part], rtol=1e-5, atol=1e-6)  # statistics are averaged
    assert {a.trigger for a in trace.aggregations} > {"single"}


def test_equal_steps_make_the_normalised_rule_the_plain_one(toys) -> None:
    plain, normalised = (compass(toys, {"variant": v}, even, clients=4, events=40) for v in ("plain", "normalised"))
    for one, other in zip(plain.vectors, normalised.vectors, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weights", ["equal", "size"])
def test_the_normalised_rule_is_that_of_the_paper(toys, weights: str) -> None:
    options = {"variant": "normalised", "staleness": "constant", "weights": weights}
    trace = compass(toys, options, clients=4, events=60)
    N = sum(10 + client for client in range(4))
    unequal = 0
    reported: set[int] = set()
    for aggregation in trace.aggregations:
        Q = [update.steps for update in aggregation.updates]
        reported |= {update.client for update in aggregation.updates}
        if len(reported) < 4:
            continue  # N is an estimate until all have reported
        p = [1 / 4 if weights == "equal" else update.examples / N for update in aggregation.updates]
        Q_eff = sum(share * q for share, q in zip(p, Q, strict=True)) / sum(p)
        assert aggregation.weights == pytest.approx([0.9 * share * Q_eff / q for share, q in zip(p, Q, strict=True)])
        unequal += len(set(Q)) > 1
    assert unequal


@pytest.mark.parametrize(
    "options",
    [
        {"aggregation": "model"},
        {"variant": "momentum"},
        {"variant": "normalised"},
        {"q_min": 1},
        {"latency_factor": 1.05},
        {"alpha": 0.5},
        {"staleness": "constant"},
        {"staleness": "hinge", "b": 0.0},
        {"staleness_sign": "up"},
        {"staleness_at": "arrival"},
        {"weights": "size"},
        {"speed_momentum": 0.1},
        {"speed_model": "affine"},
        {"first_task": "q_min"},
        {"first_task": "explicit", "first_steps": 5},
        {"timeout_seconds": 3.0},
        {"client_rate": "decay"},
        {"statistics": "group_mean"},
        {"statistics": "replace_single"},
    ],
    ids=str,
)
def test_every_switch_does_something(toys, options: dict) -> None:
    assert not same(compass(toys, options), compass(toys, {}))


def test_old_codes_sign_lets_stale_updates_gain(toys) -> None:
    trace = compass(toys, {"staleness_sign": "up"})
    weight = {lag: w for a in trace.aggregations for lag, w in zip(a.staleness, a.weights, strict=True)}
    assert weight[1] == pytest.approx(weight[0] * math.sqrt(2))
    with pytest.raises(ConfigError, match="staleness = 'hinge' has no sign"):
        build_strategy("fedcompass", {"staleness_sign": "up", "staleness": "hinge"})


def test_staleness_at_arrival_is_not_raised_by_waiting(toys) -> None:
    trace = compass(toys, {"staleness_at": "arrival"})
    lags = [
        (update.arrived_version - update.base_version, lag, weight)
        for a in trace.aggregations
        for update, lag, weight in zip(a.updates, a.staleness, a.weights, strict=True)
    ]
    assert any(arrival < lag for arrival, lag, _ in lags)
    for arrival, _, weight in lags:
        assert weight == pytest.approx(0.9 / 8 * (1 + arrival) ** -0.5)


@pytest.mark.parametrize(
    ("rule", "trigger", "replaced"),
    [
        ("group_mean", "single", True),
        ("group_mean", "all", True),
        ("replace_single", "single", True),
        ("replace_single", "all", False),
    ],
)
def test_statistics_follow_their_rule(toys, rule, trigger: str, replaced: bool) -> None:
    model = GlobalModel(3, toys.start_model().vector, toys.LAYOUT)
    older = torch.full((toys.LAYOUT.size,), 7.0)
    updates = [toys.make_update(0, version=3)]
    if trigger == "all":
        updates.append(toys.make_update(1, version=1))
    step = Step(model, updates, {1: older}, trigger, frozenset(), Ledger())
    inner = GradientAggregator(Discounted(Uniform(), a=0.5, factor=0.5))
    vector, weights = BatchNormStatistics(inner, rule=rule).aggregate(step)
    plain, same_weights = inner.aggregate(step)
    assert weights == same_weights
    buffers, rest = toys.LAYOUT.buffers, toys.LAYOUT.trainable
    assert torch.equal(vector[rest], plain[rest])
    bases = [model.vector, older][: len(updates)]
    mean = torch.stack([base + update.delta for base, update in zip(bases, updates, strict=True)]).mean(0)
    torch.testing.assert_close(vector[buffers], mean[buffers] if replaced else step.mean_statistics(weights))


def test_a_clients_rate_falls_with_its_steps(toys) -> None:
    trace = compass(toys, {"client_rate": "decay"})
    steps = dict.fromkeys(range(8), 0)
    order = iter(trace.aggregations)
    done = next(order)
    for update in trace.received:
        while done is not None and done.version <= update.base_version:
            for applied in done.updates:
                steps[applied.client] += applied.steps
            done = next(order, None)
        if update.job == 0:
            assert update.learning_rate == 0.1
    rates = [update.learning_rate for update in trace.received if update.client == 0]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1] > 0.09


def test_momentum_without_groups_is_refused(toys) -> None:
    from strategies.core.strategy import Strategy
    from strategies.schedulers import Asynchronous

    with pytest.raises(ConfigError, match=r"LoneReports .* needs 'groups'"):
        Strategy(Asynchronous(), build_strategy("fedcompass", {"variant": "momentum"}).aggregator)
