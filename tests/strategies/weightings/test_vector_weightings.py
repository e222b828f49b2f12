"""Weights that look at the vectors: finite, normalised, and those of the papers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.protocol import GlobalModel
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.core.part import parts_within
from strategies.weightings import Agreement, Discounted, KAFLWeights, LocalSteps, Uniform
from strategies.weightings.agreement import cosine
from strategies.weightings.kafl import reversed_shares

VERSION = 3


def vector(*values: float) -> torch.Tensor:
    return torch.tensor([*values, *[0.0] * (9 - len(values))])


def make_step(toys, updates, bases=None, w: torch.Tensor | None = None, counts: dict[int, int] | None = None) -> Step:
    ledger = Ledger()
    ledger.met(range(20))
    ledger.applied([toys.make_update(client) for client, n in (counts or {}).items() for _ in range(n)])
    ledger.applied(updates)
    model = GlobalModel(VERSION, vector(1.0) if w is None else w, toys.LAYOUT)
    return Step(model, updates, {VERSION: model.vector} | (bases or {}), "full", frozenset(), ledger)


def weights_of(rule, step: Step) -> tuple[float, ...]:
    rule.look(step)
    return rule.weights(step.updates, step.model.version, step.ledger)


def test_agreement_is_the_cosine_with_what_the_server_did_since_the_start(toys) -> None:
    deltas = [vector(2.0), vector(0.0, 3.0), vector(-1.0), vector(1.0, 1.0)]
    updates = [toys.make_update(c, version=1, delta=delta) for c, delta in enumerate(deltas)]
    step = make_step(toys, updates, {1: vector(0.25)})
    raw = [1.0, 0.1, 0.1, math.sqrt(0.5)]
    assert weights_of(Agreement(floor=0.1), step) == pytest.approx([r / sum(raw) for r in raw])


def test_agreement_without_movement_or_update_is_the_floor(toys) -> None:
    """Fresh: 0/0. A zero update: 0/0. A model that came back to where it was: 0/0. All count the same."""
    updates = [
        toys.make_update(0, version=VERSION),
        toys.make_update(1, version=1, delta=torch.zeros(9)),
        toys.make_update(2, version=2),
    ]
    step = make_step(toys, updates, {1: vector(5.0), 2: vector(1.0)})
    assert weights_of(Agreement(), step) == pytest.approx([1 / 3] * 3)


def test_batch_norm_statistics_are_no_direction(toys) -> None:
    update = toys.make_update(0, version=1, delta=vector(0, 0, 0, 0, 0, 0, 0, 0, 7.0))
    other = toys.make_update(1, version=1, delta=vector(1.0, 0, 0, 0, 0, 0, 0, 0, -100.0))
    step = make_step(toys, [update, other], {1: torch.zeros(9)}, w=vector(1.0, 0, 0, 0, 0, 0, 0, 0, 7.0))
    assert weights_of(Agreement(floor=0.1), step) == pytest.approx([0.1 / 1.1, 1.0 / 1.1])


def test_a_cosine_is_that_of_tiny_and_huge_vectors_as_well() -> None:
    a, b = vector(1.0, 1.0), vector(1.0)
    for scale in (1e-15, 1.0, 1e15):
        assert cosine(scale * a, scale * b) == pytest.approx(math.sqrt(0.5))
    assert cosine(a, torch.zeros(9)) == cosine(torch.zeros(9), torch.zeros(9)) == 0.0
    assert cosine(a, 3.0 * a) <= 1.0


def test_the_rarest_client_has_the_largest_share() -> None:
    assert reversed_shares([1, 5, 2]) == [5 / 8, 1 / 8, 2 / 8]
    assert reversed_shares([4]) == [1.0]


def test_equally_frequent_clients_have_equal_shares() -> None:
    assert reversed_shares([3, 1, 3]) == [2 / 7, 3 / 7, 2 / 7]
    assert reversed_shares([2, 2]) == [0.5, 0.5]


def test_kafl_weights_are_those_of_the_formula(toys) -> None:
    """w_g = e1, base 0: w_i = Delta_i; lambda = |<w_g, w_i> / <w_i, w_i> - 1| = 0.5, 0, 1; counts 1, 1, 3."""
    deltas = [vector(2.0), vector(1.0), vector(0.0, 1.0)]
    updates = [toys.make_update(c, version=1, delta=delta) for c, delta in enumerate(deltas)]
    step = make_step(toys, updates, {1: torch.zeros(9)}, counts={2: 2})
    shares = [2 / 5, 2 / 5, 1 / 5]
    raw = [math.exp(-2 * lam / q) for lam, q in zip((0.5, 0.0, 1.0), shares, strict=True)]
    assert weights_of(KAFLWeights(Uniform()), step) == pytest.approx([r / sum(raw) for r in raw])


def test_a_model_of_zeros_and_weights_that_all_but_vanish_stay_finite(toys) -> None:
    """Two models of norm 0, and one so short that lambda is 1e6 where a share is 1/5: no weight is 0/0."""
    deltas = [torch.zeros(9), torch.zeros(9), vector(1e-6)]
    updates = [toys.make_update(c, version=1, delta=delta) for c, delta in enumerate(deltas)]
    weights = weights_of(KAFLWeights(Uniform()), make_step(toys, updates, {1: torch.zeros(9)}))
    assert weights == pytest.approx([0.5, 0.5, 0.0])
    alone = make_step(toys, updates[2:], {1: torch.zeros(9)})
    assert weights_of(KAFLWeights(Uniform()), alone) == (1.0,)


entries = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.integers(0, VERSION),
        st.sampled_from([0.0, 1e-20, 1.0, 1e15]),
    ),
    min_size=1,
    max_size=10,
)


@pytest.mark.parametrize("rule", [Agreement(), KAFLWeights(Uniform())], ids=["agreement", "kafl"])
@given(chosen=entries)
def test_weights_are_not_negative_and_sum_to_one(toys, rule, chosen: list) -> None:
    updates = []
    for job, (client, version, scale) in enumerate(chosen):
        update = toys.make_update(client, job, version)
        update.delta *= scale
        updates.append(update)
    bases = {version: torch.full((9,), float(version - 1)) for version in range(VERSION)}
    step = make_step(toys, updates, bases, w=torch.zeros(9))
    weights = weights_of(rule, step)
    assert min(weights) >= 0.0
    assert sum(weights) == pytest.approx(1.0)
    part = rule.weights(updates[:1], VERSION, step.ledger)
    assert part == (1.0,)


def test_they_weigh_in_any_aggregator_and_under_a_discount(toys) -> None:
    updates = [toys.make_update(c, version=1, tasks=(0,) if c == 2 else (0, 1)) for c in range(4)]
    step = make_step(toys, updates, {1: vector(0.5, 0.5)})
    p = weights_of(Agreement(), step)
    for aggregator in (GradientAggregator(Agreement()), ModelAggregator(Agreement())):
        assert any(part.needs_bases for part in parts_within(aggregator))
        assert aggregator.aggregate(step)[1] == pytest.approx(p)
    discounted = GradientAggregator(Discounted(Agreement(), a=0.5))
    assert any(part.needs_bases for part in parts_within(discounted))
    assert discounted.aggregate(step)[1] == pytest.approx([q * 3**-0.5 for q in p])


def test_steps_weigh(toys) -> None:
    updates = [toys.make_update(0, steps=1), toys.make_update(1, steps=3)]
    assert LocalSteps().weights(updates, 0, Ledger()) == (0.25, 0.75)


def test_discounts_relative_to_the_mean_staleness(toys) -> None:
    """tau = 0 and 6, mean 3: s = 1 and 7^-1/2 over 4^-1/2."""
    updates = [toys.make_update(0, version=6), toys.make_update(1, version=0)]
    rule = Discounted(Uniform(), a=0.5, relative=True)
    assert rule.weights(updates, 6, Ledger()) == pytest.approx((1.0, 7**-0.5))
    equally_stale = [toys.make_update(c, version=2) for c in range(4)]
    assert rule.weights(equally_stale, 9, Ledger()) == pytest.approx([0.25] * 4)
