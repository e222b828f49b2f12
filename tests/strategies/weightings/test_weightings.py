from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.similarity import LARGEST
from strategies.core.ledger import Ledger
from strategies.weightings import DataSize, Discounted, FedQSWeights, Uniform, constant, hinge, polynomial

FOLLOWS = {"similarity": LARGEST}
FUNCTIONS = {"constant": constant(), "polynomial": polynomial(0.5), "hinge": hinge(10.0, 6.0)}


def ledger_with(toys, counts: dict[int, int], similarity: dict[int, float]) -> Ledger:
    ledger = Ledger(FOLLOWS)
    ledger.met(range(100))
    ledger.applied([toys.make_update(client) for client, n in counts.items() for _ in range(n)])
    for client, theta in similarity.items():
        ledger.received(toys.make_update(client, terms=toys.fedqs_terms(similarity=theta)))
    return ledger


def golden(toys, **options):
    """|D| = (100, 300), bits (1, 0), f_1 = 0.05, theta_1/theta_bar = 1.5."""
    ledger = ledger_with(toys, {1: 5, 2: 95}, {1: 30.0, 2: 10.0})
    updates = [
        toys.make_update(1, examples=100, terms=toys.fedqs_terms(feedback=True, similarity=30.0)),
        toys.make_update(2, examples=300, terms=toys.fedqs_terms(similarity=10.0)),
    ]
    base = options.pop("base", DataSize())
    return FedQSWeights(base, **({"phi": 0.1} | options)), updates, ledger


def test_golden_weight(toys) -> None:
    rule, updates, ledger = golden(toys)
    assert rule.unnormalised(updates, (0.25, 0.75), ledger)[0] == pytest.approx(0.825062, abs=5e-7)
    assert rule.weights(updates, 0, ledger) == pytest.approx((0.523828, 0.476172), abs=5e-7)


def test_golden_weight_with_uniform_base(toys) -> None:
    rule, updates, ledger = golden(toys, base=Uniform())
    assert rule.weights(updates, 0, ledger)[0] == pytest.approx(0.767455, abs=5e-7)


def test_the_similarity_factor_is_capped_at_ratio_two(toys) -> None:
    def first(theta: float) -> float:
        rule, updates, ledger = golden(toys)
        updates[0].terms = toys.fedqs_terms(feedback=True, similarity=theta)
        return rule.weights(updates, 0, ledger)[0]

    assert first(40.0) == first(140.0) > first(39.0)


@pytest.mark.parametrize(("count", "factor"), [(555, 1.013749), (20, 1.030528)])
def test_golden_speed_factors(toys, count: int, factor: float) -> None:
    """f = 0.0555 and f = 0.002; without a similarity the speed factor stands alone."""
    ledger = ledger_with(toys, {1: count, 2: 10_000 - count}, {})
    updates = [toys.make_update(1, terms=toys.fedqs_terms(feedback=True)), toys.make_update(2)]
    raised = FedQSWeights(Uniform(), phi=0.1).unnormalised(updates, (0.5, 0.5), ledger)
    assert raised[0] / 0.5 == pytest.approx(factor, abs=5e-7)


def test_without_feedback_bits_the_weights_are_the_base_exactly(toys) -> None:
    updates = [toys.make_update(client, terms=toys.fedqs_terms(similarity=50.0)) for client in range(10)]
    ledger = ledger_with(toys, dict.fromkeys(range(10), 1), dict.fromkeys(range(10), 50.0))
    assert FedQSWeights(Uniform()).weights(updates, 0, ledger) == (1 / 10,) * 10


def test_feedback_can_be_switched_off(toys) -> None:
    rule, updates, ledger = golden(toys, base=Uniform(), feedback=False)
    assert rule.weights(updates, 0, ledger) == (0.5, 0.5)


def test_phi_is_the_share_of_a_buffer_in_the_fleet_unless_given(toys) -> None:
    rule, updates, ledger = golden(toys, phi=None)
    given, _, _ = golden(toys, phi=2 / 100)
    assert rule.weights(updates, 0, ledger) == given.weights(updates, 0, ledger)


def test_the_exponent_can_follow_the_ratio_of_frequencies(toys) -> None:
    rule, updates, ledger = golden(toys, speed="ratio")
    ratio = min(0.5 / 0.05, 9)  # f_bar over f_1, capped
    expected = 0.25 * (math.e / 2) ** (0.1 - ratio) * (1 + 1.5**2)
    assert rule.unnormalised(updates, (0.25, 0.75), ledger)[0] == pytest.approx(expected)


def test_the_similarity_factor_can_be_the_square_of_the_sum(toys) -> None:
    rule, updates, ledger = golden(toys, similarity="(1+G)^2")
    expected = 0.25 * (math.e / 2) ** 0.05 * 2.5**2
    assert rule.unnormalised(updates, (0.25, 0.75), ledger)[0] == pytest.approx(expected)


finite_or_not = st.one_of(st.none(), st.floats(0, 180), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(
    entries=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 500), st.booleans(), finite_or_not), min_size=1),
    speed=st.sampled_from(["frequency", "ratio"]),
    similarity=st.sampled_from(["1+G^2", "(1+G)^2"]),
    base=st.sampled_from([Uniform(), DataSize()]),
)
def test_fedqs_weights_are_not_negative_and_sum_to_one(toys, entries: list, speed: str, similarity: str, base) -> None:
    updates = [
        toys.make_update(client, examples=n, terms=toys.fedqs_terms(feedback=bit, similarity=theta))
        for client, n, bit, theta in entries
    ]
    ledger = Ledger(FOLLOWS)
    ledger.met(range(5))
    for update in updates:
        ledger.received(update)
    ledger.applied(updates)
    weights = FedQSWeights(base, speed=speed, similarity=similarity).weights(updates, 3, ledger)
    assert all(weight >= 0 for weight in weights)
    assert math.fsum(weights) == pytest.approx(1.0, abs=1e-12)


def test_data_size_weights_follow_the_examples(toys) -> None:
    updates = [toys.make_update(client, examples=n) for client, n in enumerate((100, 300))]
    assert DataSize().weights(updates, 0, Ledger()) == (0.25, 0.75)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(tau=st.integers(0, 1000))
def test_staleness_never_raises_a_weight(name: str, tau: int) -> None:
    s = FUNCTIONS[name]
    assert s(0) == 1.0
    assert 0 < s(tau + 1) <= s(tau)


@given(a=st.floats(0.0, 20.0), b=st.integers(0, 20), tau=st.integers(0, 200))
def test_no_exponent_or_slope_raises_a_stale_weight(a: float, b: int, tau: int) -> None:
    for s in (polynomial(a), hinge(a, b)):
        assert s(0) == 1.0
        assert 0.0 < s(tau + 1) <= s(tau) <= 1.0


def test_golden_staleness(toys) -> None:
    assert [hinge(10, 6)(tau) for tau in (6, 7)] == [1.0, 1 / 11]
    rule = Discounted(Uniform(), polynomial(0.5), 0.9)
    assert rule.weights([toys.make_update(version=2)], 5, Ledger()) == pytest.approx((0.45,))
