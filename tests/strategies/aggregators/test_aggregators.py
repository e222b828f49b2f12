from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators import GradientAggregator, ModelAggregator
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.weightings import DataSize, Discounted, Uniform

VERSION = 5


def make_step(toys, updates: Sequence[Update], bases: dict[int, torch.Tensor] | None = None) -> Step:
    model = GlobalModel(VERSION, toys.start_model().vector, toys.LAYOUT)
    return Step(model, updates, bases or {}, "full", frozenset(), Ledger())


def base_of(version: int) -> torch.Tensor:
    return torch.randn(9, generator=torch.Generator().manual_seed(version))


both = pytest.mark.parametrize("aggregator", [GradientAggregator(Uniform()), ModelAggregator(Uniform())])


def test_gradient_aggregation_adds_weighted_updates_to_the_current_model(toys) -> None:
    updates = [toys.make_update(client, version=client) for client in range(4)]
    step = make_step(toys, updates)
    vector, weights = GradientAggregator(DataSize(), server_rate=0.5).aggregate(step)
    stacked = torch.stack([update.delta for update in updates])
    torch.testing.assert_close(vector, step.model.vector + 0.5 * torch.tensor(weights) @ stacked)
    assert sum(weights) == pytest.approx(1.0)


def test_model_aggregation_averages_the_clients_models(toys) -> None:
    updates = [toys.make_update(client, version=version) for client, version in enumerate((0, 3, 3, VERSION))]
    bases = {version: base_of(version) for version in (0, 3)}
    step = make_step(toys, updates, bases)
    vector, weights = ModelAggregator(DataSize()).aggregate(step)
    bases[VERSION] = step.model.vector
    models = torch.stack([bases[update.base_version] + update.delta for update in updates])
    torch.testing.assert_close(vector, torch.tensor(weights) @ models)


def test_model_aggregation_mixes_when_the_weights_sum_to_less_than_one(toys) -> None:
    update = toys.make_update(version=2)
    step = make_step(toys, [update], {2: base_of(2)})
    vector, (alpha,) = ModelAggregator(Discounted(Uniform(), a=0.5, factor=0.9)).aggregate(step)
    assert alpha == pytest.approx(0.45)
    torch.testing.assert_close(vector, (1 - alpha) * step.model.vector + alpha * (base_of(2) + update.delta))


class Whole(Uniform):
    """Each update has the weight 1, whatever the others have."""

    def weights(self, updates, version, ledger) -> tuple[float, ...]:
        return (1.0,) * len(updates)


def test_model_aggregation_never_weighs_the_current_model_negatively(toys) -> None:
    step = make_step(toys, [toys.make_update(client, version=version) for client, version in ((0, 2), (1, VERSION))])
    step.bases[2] = base_of(2)
    vector, weights = ModelAggregator(Whole()).aggregate(step)
    mean, shares = ModelAggregator(Uniform()).aggregate(step)
    assert weights == shares == (0.5, 0.5)
    assert torch.equal(vector, mean)


@given(clients=st.lists(st.integers(0, 50), min_size=1, max_size=12))
def test_without_staleness_both_forms_agree_bit_for_bit(toys, clients: list[int]) -> None:
    step = make_step(toys, [toys.make_update(client, version=VERSION) for client in clients])
    gradient, model = (form(DataSize()).aggregate(step)[0] for form in (GradientAggregator, ModelAggregator))
    assert torch.equal(gradient, model)


def test_fedbuff_step_of_its_golden_case(toys) -> None:
    """K = 2, updates 2 and 4, staleness 0 and 3: w moves by (2 + 4/2) / 2."""
    ones = torch.ones(9)
    updates = [toys.make_update(0, version=5, delta=2 * ones), toys.make_update(1, version=2, delta=4 * ones)]
    step = make_step(toys, updates)
    vector, _ = GradientAggregator(Discounted(Uniform(), a=0.5)).aggregate(step)
    torch.testing.assert_close(vector - step.model.vector, 2 * ones)


@both
@given(order=st.permutations(range(7)))
def test_the_order_of_arrivals_does_not_matter_but_for_rounding(toys, aggregator, order: list[int]) -> None:
    owners = ((0, 1), (0,), (1,))
    updates = [toys.make_update(client, version=VERSION - client % 3, tasks=owners[client % 3]) for client in range(7)]
    bases = {version: base_of(version) for version in range(VERSION)}
    vector, weights = aggregator.aggregate(make_step(toys, updates, bases))
    shuffled, others = aggregator.aggregate(make_step(toys, [updates[place] for place in order], bases))
    torch.testing.assert_close(shuffled, vector, rtol=1e-6, atol=1e-6)
    assert others == tuple(weights[place] for place in order)


@both
def test_the_model_before_is_left_alone(toys, aggregator) -> None:
    step = make_step(toys, [toys.make_update(0, version=VERSION, tasks=(0,)), toys.make_update(1, version=VERSION)])
    before = step.model.vector.clone()
    vector, _ = aggregator.aggregate(step)
    assert torch.equal(step.model.vector, before)
    assert vector.data_ptr() != step.model.vector.data_ptr()


@both
def test_a_head_is_averaged_over_its_owners(toys, aggregator) -> None:
    owners = ((0,), (0, 1), (1,), (0, 1))
    updates = [toys.make_update(client, version=VERSION, tasks=tasks) for client, tasks in enumerate(owners)]
    step = make_step(toys, updates)
    vector, weights = aggregator.aggregate(step)
    moved, deltas = vector - step.model.vector, torch.stack([update.delta for update in updates])
    assert weights == (0.25,) * 4
    close = torch.testing.assert_close
    close(moved[toys.LAYOUT.shared], deltas[:, toys.LAYOUT.shared].mean(0))
    close(moved[toys.LAYOUT.buffers], deltas[:, toys.LAYOUT.buffers].mean(0))
    close(moved[toys.LAYOUT.heads[0]], deltas[[0, 1, 3], toys.LAYOUT.heads[0]].mean(0))
    close(moved[toys.LAYOUT.heads[1]], deltas[[1, 2, 3], toys.LAYOUT.heads[1]].mean(0))


@pytest.mark.parametrize("form", [GradientAggregator, ModelAggregator])
def test_owners_of_a_head_are_weighed_by_the_rule_as_if_they_were_alone(toys, form) -> None:
    """By examples 10, 30 and 60, the last without the first head: its owners count 1/4 and 3/4."""
    examples, owners = (10, 30, 60), ((0, 1), (0,), (1,))
    updates = [
        toys.make_update(client, version=VERSION, examples=n, tasks=tasks)
        for client, (n, tasks) in enumerate(zip(examples, owners, strict=True))
    ]
    step = make_step(toys, updates)
    vector, weights = form(DataSize()).aggregate(step)
    assert weights == pytest.approx((0.1, 0.3, 0.6))
    moved, deltas = vector - step.model.vector, [update.delta for update in updates]
    first, second = toys.LAYOUT.heads
    torch.testing.assert_close(moved[first], 0.25 * deltas[0][first] + 0.75 * deltas[1][first])
    torch.testing.assert_close(moved[second], (deltas[0][second] + 6 * deltas[2][second]) / 7)


def test_a_stale_head_is_averaged_over_its_owners_models(toys) -> None:
    updates = [toys.make_update(0, version=1, tasks=(0,)), toys.make_update(1, version=VERSION, tasks=(0, 1))]
    step = make_step(toys, updates, {1: base_of(1)})
    vector, _ = ModelAggregator(Uniform()).aggregate(step)
    first, second = toys.LAYOUT.heads
    now = step.model.vector
    torch.testing.assert_close(
        vector[first], (base_of(1)[first] + updates[0].delta[first] + now[first] + updates[1].delta[first]) / 2
    )
    torch.testing.assert_close(vector[second], now[second] + updates[1].delta[second])


@both
def test_a_head_without_an_owner_in_the_buffer_stays_as_it_is(toys, aggregator) -> None:
    updates = [toys.make_update(client, version=VERSION, tasks=(1,)) for client in range(3)]
    step = make_step(toys, updates)
    vector, _ = aggregator.aggregate(step)
    first, second = toys.LAYOUT.heads
    assert torch.equal(vector[first], step.model.vector[first])
    assert not torch.equal(vector[second], step.model.vector[second])


@both
def test_where_everybody_owns_everything_heads_are_nothing_special(toys, aggregator) -> None:
    """A head that all own gets the same bits from the pass over the whole vector and from the pass by owners."""
    everything = [toys.make_update(client, version=VERSION) for client in range(5)]
    whole, _ = aggregator.aggregate(make_step(toys, everything))
    by_owner, _ = aggregator.aggregate(make_step(toys, [*everything, toys.make_update(9, version=VERSION, tasks=(0,))]))
    head = toys.LAYOUT.heads[1]
    assert torch.equal(by_owner[head], whole[head])
