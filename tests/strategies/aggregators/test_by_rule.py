"""A rule in the place of the mean: one say for each client, a length from the weights, heads of their owners."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmtl.errors import ConfigError
from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators import BatchNormStatistics, FlowerRule, GradientAggregator, ModelAggregator, Optimized
from strategies.aggregators.by_rule import merged
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Aggregator, Step, Weighting
from strategies.core.part import parts_within, prepare
from strategies.weightings import DataSize, Discounted, FedQSWeights, Normalised, ShareOfAll, Uniform
from strategies.weightings.vectors import GivenScores

VERSION = 3
ROUNDING = 1e-6
"""``w + Delta - w`` rounds once for each of the two sums of numbers near 1."""


def taken(toys, aggregator: Aggregator, updates: list[Update], rule: FlowerRule | None = None) -> tuple[Tensor, tuple]:
    """What a step moves the model by, and the weights."""
    for part in list(parts_within(aggregator)):
        if isinstance(part, Aggregator):
            part.aggregate_by(rule or FlowerRule("median"))
    model = toys.start_model(VERSION)
    prepare([aggregator], model, seed=0)
    earlier = [GlobalModel(version, base_of(toys, version), toys.LAYOUT) for version in range(VERSION)]
    vector, weights = aggregator.aggregate(Step.of(model, updates, earlier=earlier))
    return vector - model.vector, weights


def base_of(toys, version: int) -> Tensor:
    return torch.randn(toys.LAYOUT.size, generator=torch.Generator().manual_seed(version))


def fresh(toys, clients: int, **fields) -> list[Update]:
    return [toys.make_update(client, version=VERSION, **fields) for client in range(clients)]


def median(vectors: list[Tensor]) -> Tensor:
    """Per entry; of an even number the mean of the two in the middle, which torch's is not."""
    return torch.quantile(torch.stack(vectors), 0.5, dim=0)


steps = st.lists(
    st.tuples(st.integers(0, 5), st.floats(-1e3, 1e3, width=32), st.floats(0.0, 1.0)), min_size=1, max_size=20
)


@given(steps)
def test_a_clients_updates_are_merged_by_their_weights_and_no_weight_is_lost(step: list[tuple]) -> None:
    clients, values, weights = ([entry[i] for entry in step] for i in range(3))
    says = merged(clients, [torch.tensor([value, 1.0]) for value in values], weights)
    assert len(says) == len(set(clients))
    assert sorted(place for say in says for place, _ in say.parts) == list(range(len(step)))
    assert math.fsum(say.weight for say in says) == pytest.approx(math.fsum(weights))
    for say in says:
        own = [values[place] for place, _ in say.parts]
        assert len({clients[place] for place, _ in say.parts}) == 1
        assert math.fsum(share for _, share in say.parts) == pytest.approx(1.0)
        # A sum of float32 products, of up to 20 numbers up to 1e3.
        assert min(own) - 1e-2 <= float(say.vector[0]) <= max(own) + 1e-2
        assert float(say.vector[1]) == pytest.approx(1.0, abs=1e-5)
        whole = math.fsum(weights[place] * values[place] for place, _ in say.parts)
        assert say.weight * float(say.vector[0]) == pytest.approx(whole, abs=1e-2)


@given(steps, st.randoms(use_true_random=False))
def test_the_order_of_the_updates_is_nothing_to_what_a_client_says(step: list[tuple], random) -> None:
    def says(entries: list[tuple]) -> dict[int, tuple[float, float]]:
        clients, values, weights = ([entry[i] for entry in entries] for i in range(3))
        found = merged(clients, [torch.tensor([value], dtype=torch.float64) for value in values], weights)
        return {clients[say.parts[0][0]]: (float(say.vector), say.weight) for say in found}

    mixed = list(step)
    random.shuffle(mixed)
    first, second = says(step), says(mixed)
    assert first.keys() == second.keys()
    for client, (value, weight) in first.items():
        assert second[client] == (pytest.approx(value, abs=1e-9), pytest.approx(weight))


@given(st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True))
def test_a_lone_update_of_a_client_is_taken_as_it_is(clients: list[int]) -> None:
    vectors = [torch.randn(3) for _ in clients]
    for say, vector in zip(merged(clients, vectors, [0.3] * len(clients)), vectors, strict=True):
        assert say.vector is vector


def test_a_liar_has_one_say_however_many_updates_it_sent(toys) -> None:
    honest = fresh(toys, 3)
    lies = [toys.make_update(9, job, version=VERSION, delta=torch.full((9,), 1e3)) for job in range(7)]
    moved, weights = taken(toys, GradientAggregator(Uniform()), [*lies, *honest], FlowerRule("median", malicious=1))
    deltas = torch.stack([update.delta for update in honest])
    assert (moved >= deltas.min(0).values - ROUNDING).all()
    assert (moved <= deltas.max(0).values + ROUNDING).all()
    assert len(weights) == 10


def test_the_weights_of_a_clients_updates_sum_to_its_share(toys) -> None:
    twice = [toys.make_update(0, job, version=VERSION, examples=n) for job, n in ((0, 10), (1, 30))]
    others = [toys.make_update(c, version=VERSION, examples=40) for c in (1, 2, 3)]
    moved, weights = taken(
        toys, GradientAggregator(DataSize()), [twice[0], *others, twice[1]], FlowerRule("multikrum", selected=4)
    )
    assert weights == pytest.approx((10 / 160, 0.25, 0.25, 0.25, 30 / 160))
    mean = sum(w * u.delta for w, u in zip(weights, [twice[0], *others, twice[1]], strict=True))
    torch.testing.assert_close(moved, mean, rtol=0, atol=ROUNDING)


def test_what_the_weights_come_to_is_the_length_of_the_step(toys) -> None:
    updates = [toys.make_update(client, version=version) for client, version in enumerate((3, 2, 0, 3))]
    expected = median([update.delta for update in updates])
    discount = (1 + 2**-0.5 + 4**-0.5 + 1) / 4  # of FedBuff, for staleness 0, 1, 3 and 0
    moved, weights = taken(toys, GradientAggregator(Discounted(Uniform(), a=0.5), server_rate=0.5), updates)
    torch.testing.assert_close(moved, 0.5 * discount * expected, rtol=0, atol=ROUNDING)
    assert sum(weights) == pytest.approx(discount)
    moved, _ = taken(toys, GradientAggregator(ShareOfAll(Uniform())), updates)
    torch.testing.assert_close(moved, expected, rtol=0, atol=ROUNDING)  # all four clients there are


def test_models_are_combined_as_models(toys) -> None:
    updates = [toys.make_update(client, version=version) for client, version in enumerate((3, 2, 0, 3, 1))]
    now = toys.start_model(VERSION).vector
    models = [(now if u.base_version == VERSION else base_of(toys, u.base_version)) + u.delta for u in updates]
    moved, _ = taken(toys, ModelAggregator(Uniform()), updates)
    torch.testing.assert_close(now + moved, median(models), rtol=0, atol=2 * ROUNDING)


def test_without_staleness_models_and_updates_give_the_same_bits(toys) -> None:
    first, _ = taken(toys, ModelAggregator(DataSize()), fresh(toys, 5))
    second, _ = taken(toys, GradientAggregator(DataSize()), fresh(toys, 5))
    assert torch.equal(first, second)


def test_updates_of_unequal_work_are_compared_by_what_a_step_of_them_is(toys) -> None:
    works = (1, 2, 4, 8, 16)
    updates = [
        toys.make_update(client, version=VERSION, steps=work, delta=torch.full((9,), float(work)))
        for client, work in enumerate(works)
    ]
    updates[4].delta.fill_(1e3)
    moved, _ = taken(toys, GradientAggregator(Normalised(Uniform())), updates)
    # Each honest step is 1 long, and tau_eff is the mean work.
    torch.testing.assert_close(moved, torch.full((9,), sum(works) / 5), rtol=1e-6, atol=ROUNDING)


def test_a_head_is_its_owners_and_stays_where_these_are_too_few_to_bear_the_liars(toys) -> None:
    updates = [toys.make_update(c, version=VERSION, tasks=(0, 1) if c < 2 else (0,)) for c in range(5)]
    shared, (_, second) = toys.LAYOUT.shared, toys.LAYOUT.heads
    for malicious in (0, 1):
        moved, _ = taken(toys, GradientAggregator(Uniform()), updates, FlowerRule("median", malicious=malicious))
        expected = median([update.delta for update in updates])
        torch.testing.assert_close(moved[shared], expected[shared], rtol=0, atol=ROUNDING)
        of_owners = median([update.delta for update in updates[:2]])[second] if malicious == 0 else torch.zeros(2)
        torch.testing.assert_close(moved[second], of_owners, rtol=0, atol=ROUNDING)


def test_what_stands_around_the_mean_stands_around_the_rule(toys) -> None:
    updates = fresh(toys, 5)
    expected = median([update.delta for update in updates])
    moved, _ = taken(toys, Optimized(GradientAggregator(Uniform()), SGD(rate=0.5)), updates)
    part = toys.LAYOUT.trainable
    torch.testing.assert_close(moved[part], 0.5 * expected[part], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("weighting", [DataSize(), ShareOfAll(Uniform(), by="examples"), FedQSWeights(DataSize())])
def test_noise_is_that_of_a_mean_in_which_all_count_the_same(weighting: Weighting) -> None:
    with pytest.raises(ConfigError, match="'dp-clip' needs weight_base = 'uniform'"):
        GradientAggregator(weighting).aggregate_by(FlowerRule("dp-clip"))


def test_a_client_that_sent_twice_is_clipped_once(toys) -> None:
    long = torch.zeros(9).index_fill(0, torch.tensor([0]), 100.0)
    updates = [toys.make_update(0, job, version=VERSION, delta=long) for job in range(3)]
    updates.append(toys.make_update(1, version=VERSION, delta=torch.zeros(9)))
    moved, weights = taken(toys, GradientAggregator(Uniform()), updates, FlowerRule("dp-clip", clipping_norm=1.0))
    assert float(moved[0]) == pytest.approx(0.5, abs=1e-5)  # half of one client's norm
    assert weights == pytest.approx((1 / 6, 1 / 6, 1 / 6, 1 / 2))


def test_weights_may_all_be_zero(toys) -> None:
    moved, weights = taken(toys, GradientAggregator(Zero()), fresh(toys, 3))
    assert moved.count_nonzero() == 0
    assert weights == (0.0, 0.0, 0.0)


class Zero(GivenScores):
    def __init__(self) -> None:
        super().__init__([])

    def look(self, step: Step) -> None:
        return None

    def weights(self, updates, version, ledger) -> tuple[float, ...]:
        return (0.0,) * len(updates)


def test_statistics_by_a_rule_of_their_own_hold_a_mean_that_a_rule_replaces(toys) -> None:
    aggregator = BatchNormStatistics(GradientAggregator(Uniform()), rule="keep_server")
    moved, _ = taken(toys, aggregator, fresh(toys, 3))
    assert moved[toys.LAYOUT.buffers].count_nonzero() == 0
    expected = median([update.delta for update in fresh(toys, 3)])
    torch.testing.assert_close(moved[toys.LAYOUT.trainable], expected[toys.LAYOUT.trainable], rtol=0, atol=ROUNDING)
