"""The aggregations that belong to one method: WKAFL, CA2FL, SAFA and FedAT.

Long because each method is followed over several steps by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.protocol import GlobalModel, JobKey, Update
from strategies.aggregators import (
    CachedModels,
    CalibratedAggregator,
    GradientAggregator,
    ModelAggregator,
    TierModels,
    WKAFLAggregator,
)
from strategies.aggregators.storage import StorageName
from strategies.aggregators.tier_models import tier_weights
from strategies.aggregators.wkafl import discounts
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger
from strategies.schedulers import LagTolerant, Tiered
from strategies.weightings import DataSize, Uniform

VERSION = 5


def make_step(
    toys,
    updates: Sequence[Update],
    *,
    clients: int = 4,
    vector: torch.Tensor | None = None,
    late: Sequence[JobKey] = (),
    version: int = VERSION,
) -> Step:
    ledger = Ledger()
    ledger.met(range(clients))
    model = GlobalModel(version, toys.start_model().vector if vector is None else vector, toys.LAYOUT)
    bases = {v: torch.full((9,), 0.1 * v) for v in range(version)} | {version: model.vector}
    return Step(model, updates, bases, "full", frozenset(late), ledger)


def ready(toys, aggregator: Aggregator) -> Aggregator:
    aggregator.prepare(toys.start_model(), 0)
    return aggregator


def along(*values: float) -> torch.Tensor:
    return torch.tensor([*values, *[0.0] * (9 - len(values))])


# WKAFL


def test_wkafl_takes_the_mean_of_identical_fresh_updates(toys) -> None:
    delta = along(0.3, -0.2)
    step = make_step(toys, [toys.make_update(c, version=VERSION, delta=delta) for c in range(3)])
    vector, weights = ready(toys, WKAFLAggregator()).aggregate(step)
    torch.testing.assert_close(vector, step.model.vector + delta)
    assert weights == pytest.approx([1 / 3] * 3)


def test_wkafl_leaves_out_what_disagrees(toys) -> None:
    deltas = [along(1.0), along(1.0, 0.1), along(-1.0)]
    step = make_step(toys, [toys.make_update(c, version=VERSION, delta=delta) for c, delta in enumerate(deltas)])
    _, weights = ready(toys, WKAFLAggregator()).aggregate(step)
    assert weights[2] == 0.0
    assert sum(weights) == pytest.approx(1.0)
    g_hat = torch.stack(deltas).mean(0)
    cosines = [torch.cosine_similarity(delta, g_hat, dim=0).item() for delta in deltas[:2]]
    assert weights[0] / weights[1] == pytest.approx(math.exp(50 * (cosines[0] - cosines[1])), rel=1e-3)


def test_wkafl_falls_back_on_the_estimate_if_nothing_agrees(toys) -> None:
    """Three updates at right angles: each has a cosine of 3^-1/2 with their mean, below a bound of 0.9."""
    deltas = [along(1.0), along(0.0, 1.0), along(0.0, 0.0, 1.0)]
    staleness = [0, 1, 4]
    updates = [toys.make_update(c, version=VERSION - tau, delta=deltas[c]) for c, tau in enumerate(staleness)]
    step = make_step(toys, updates)
    vector, weights = ready(toys, WKAFLAggregator(cosine_bound=0.9)).aggregate(step)
    raw = [(math.e / 2) ** -tau for tau in staleness]
    assert weights == pytest.approx([r / sum(raw) for r in raw])
    g_hat = sum(r / sum(raw) * delta for r, delta in zip(raw, deltas, strict=True))
    torch.testing.assert_close(vector - step.model.vector, g_hat)


def test_wkafl_survives_zeros(toys) -> None:
    zeros = [toys.make_update(c, version=VERSION, delta=torch.zeros(9)) for c in range(3)]
    aggregator = ready(toys, WKAFLAggregator(late_from=0))
    step = make_step(toys, zeros)
    vector, weights = aggregator.aggregate(step)
    assert vector.equal(step.model.vector)
    assert weights == pytest.approx([1 / 3] * 3)
    mixed = [*zeros[:2], toys.make_update(3, version=VERSION, delta=along(1.0))]
    assert aggregator.aggregate(make_step(toys, mixed))[1] == (0.0, 0.0, 1.0)


def test_wkafl_carries_a_share_of_the_last_direction(toys) -> None:
    aggregator = ready(toys, WKAFLAggregator(momentum=0.5))
    change = [
        aggregator.aggregate(step)[0] - step.model.vector
        for delta in (along(1.0), along(1.0))
        for step in [make_step(toys, [toys.make_update(0, version=VERSION, delta=delta)])]
    ]
    torch.testing.assert_close(change[1], along(1.5))


def test_wkafl_clips_and_slows_down(toys) -> None:
    """A norm of 5 is clipped to 2; the freshest update is 2 versions old; then the second stage bounds by g_hat."""
    update = toys.make_update(0, version=VERSION - 2, delta=along(3.0, 4.0))
    step = make_step(toys, [update])
    vector, _ = ready(toys, WKAFLAggregator(norm_bound=2.0)).aggregate(step)
    torch.testing.assert_close(vector - step.model.vector, along(1.2, 1.6) / 1.02)
    vector, _ = ready(toys, WKAFLAggregator(norm_bound=2.0, late_from=VERSION, late_bound=0.5)).aggregate(step)
    torch.testing.assert_close(vector - step.model.vector, along(0.6, 0.8) / 1.02)


def test_wkafl_averages_batch_norm_statistics(toys) -> None:
    deltas = [along(100.0, 0, 0, 0, 0, 0, 0, 0, 2.0), along(100.0, 0, 0, 0, 0, 0, 0, 0, 4.0)]
    step = make_step(toys, [toys.make_update(c, version=VERSION, delta=delta) for c, delta in enumerate(deltas)])
    vector, _ = ready(toys, WKAFLAggregator(server_rate=0.5)).aggregate(step)
    torch.testing.assert_close(vector - step.model.vector, along(5.0, 0, 0, 0, 0, 0, 0, 0, 3.0))


def test_wkafl_discounts_stay_finite_however_stale() -> None:
    assert discounts([100_000, 100_001]) == pytest.approx([1 / (1 + 2 / math.e), (2 / math.e) / (1 + 2 / math.e)])
    assert discounts([0, 100_000])[0] == 1.0


# CA2FL


def test_ca2fl_is_the_mean_of_all_caches_and_the_calibrated_updates(toys) -> None:
    aggregator = ready(toys, CalibratedAggregator(Uniform()))
    first = {client: along(float(client)) for client in range(4)}
    for client, delta in first.items():
        aggregator.aggregate(make_step(toys, [toys.make_update(client, delta=delta)]))
    updates = [toys.make_update(0, 1, delta=along(0.0, 4.0)), toys.make_update(2, 1, delta=along(0.0, 8.0))]
    step = make_step(toys, updates)
    vector, weights = aggregator.aggregate(step)
    # mean h = 1.5 e1; calibration: ((0, 4) - (0, 0) + (0, 8) - (2, 0)) / 2 = (-1, 6)
    torch.testing.assert_close(vector - step.model.vector, along(0.5, 6.0))
    assert weights == (0.5, 0.5)


def test_ca2fl_with_unchanged_updates_moves_by_the_mean_of_the_caches(toys) -> None:
    aggregator = ready(toys, CalibratedAggregator(Uniform()))
    updates = [toys.make_update(client) for client in range(4)]
    for update in updates:
        aggregator.aggregate(make_step(toys, [update]))
    mean = torch.stack([update.delta for update in updates]).mean(0)
    torch.testing.assert_close(aggregator.last.mean(4, torch.zeros(9)), mean)
    step = make_step(toys, updates[1:3])
    torch.testing.assert_close(aggregator.aggregate(step)[0] - step.model.vector, mean)


@pytest.mark.parametrize("storage", ["single", "half", "disk"])
@given(seed=st.integers(0, 1000))
def test_ca2fl_with_everybody_is_gradient_aggregation_whatever_the_cache(toys, storage: StorageName, seed: int) -> None:
    aggregator = ready(toys, CalibratedAggregator(Uniform(), cache=storage))
    for client in (0, 2, 3):
        aggregator.aggregate(make_step(toys, [toys.make_update(client, seed)]))
    step = make_step(toys, [toys.make_update(client, seed + 1, VERSION) for client in range(4)])
    wanted, _ = GradientAggregator(Uniform()).aggregate(step)
    # The cache is added and subtracted as it is kept: what half precision loses cancels.
    torch.testing.assert_close(aggregator.aggregate(step)[0], wanted, atol=1e-6, rtol=1e-6)


updates_of_a_step = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([(0, 1), (0, 1), (0,), (1,)])), min_size=1, max_size=5
)


@pytest.mark.parametrize("weighting", [Uniform, DataSize])
@given(steps=st.lists(updates_of_a_step, min_size=1, max_size=6), seed=st.integers(0, 100))
def test_ca2fl_is_its_formula_whoever_reports(toys, weighting, steps: list, seed: int) -> None:
    """Also with clients that report twice in a step, own other tasks than before, and unequal weights."""
    aggregator = ready(toys, CalibratedAggregator(weighting(), server_rate=0.5))
    h: dict[int, tuple[torch.Tensor, tuple[int, ...]]] = {}
    for number, reports in enumerate(steps):
        updates = [
            toys.make_update(client, 100 * seed + 10 * number + i, tasks=tasks)
            for i, (client, tasks) in enumerate(reports)
        ]
        step = make_step(toys, updates, clients=6)
        wanted = step.model.vector.double().clone()
        for index, part in enumerate([toys.LAYOUT.shared, *toys.LAYOUT.heads, toys.LAYOUT.buffers]):
            takes_part = (lambda tasks: True) if index in (0, 3) else (lambda tasks, task=index - 1: task in tasks)
            owners = [update for update in updates if takes_part(update.tasks)]
            if not owners:
                continue
            kept = [vector for vector, tasks in h.values() if takes_part(tasks)]
            lacking = sum(not takes_part(tasks) for _, tasks in h.values())
            if lacking < 6:
                wanted[part] += 0.5 * sum((vector[part] for vector in kept), torch.zeros(())) / (6 - lacking)
            for update, p in zip(owners, weighting().weights(owners, VERSION, step.ledger), strict=True):
                before = h[update.client][0] if update.client in h else torch.zeros(9)
                wanted[part] += 0.5 * p * (update.delta - before)[part].double()
        # Roundings of a few terms below 5.
        torch.testing.assert_close(aggregator.aggregate(step)[0], wanted.float(), atol=1e-5, rtol=0)
        h |= {update.client: (update.delta, update.tasks) for update in updates}


def test_ca2fl_heads_take_the_caches_of_their_owners(toys) -> None:
    aggregator = ready(toys, CalibratedAggregator(Uniform()))
    for client in range(4):
        tasks = (0,) if client == 3 else (0, 1)
        aggregator.aggregate(make_step(toys, [toys.make_update(client, delta=torch.ones(9), tasks=tasks)]))
    step = make_step(toys, [toys.make_update(0, 1, delta=torch.ones(9))])
    torch.testing.assert_close(aggregator.aggregate(step)[0] - step.model.vector, torch.ones(9))


# SAFA


def test_safa_with_everybody_picked_is_fedavg_by_data_size(toys) -> None:
    step = make_step(toys, [toys.make_update(client, version=VERSION - client) for client in range(4)])
    vector, weights = ready(toys, CachedModels(LagTolerant())).aggregate(step)
    wanted, wanted_weights = ModelAggregator(DataSize()).aggregate(step)
    torch.testing.assert_close(vector, wanted, atol=1e-6, rtol=1e-6)
    assert weights == pytest.approx(wanted_weights)


def test_safa_caches_start_at_the_first_model(toys) -> None:
    """One of four clients is picked: three quarters of the model stay where they were (by examples: as its own)."""
    start = toys.start_model().vector
    step = make_step(toys, [toys.make_update(1, version=0, delta=torch.ones(9))], vector=start + 7.0, version=1)
    step.bases[0].copy_(start)
    vector, weights = ready(toys, CachedModels(LagTolerant())).aggregate(step)
    torch.testing.assert_close(vector, start + 0.25)
    assert weights == pytest.approx((0.25,))


def test_safa_an_undrafted_update_counts_in_the_next_step(toys) -> None:
    aggregator = ready(toys, CachedModels(LagTolerant(), weight_base="uniform"))
    start = toys.start_model().vector
    updates = [toys.make_update(c, version=VERSION, delta=torch.full((9,), 4.0 * (c + 1))) for c in range(2)]
    first = make_step(toys, updates, late=[updates[1].key], vector=start)
    vector, weights = aggregator.aggregate(first)
    torch.testing.assert_close(vector, start + 1.0)
    assert weights == (0.25, 0.0)
    again = make_step(toys, [toys.make_update(0, 1, VERSION, delta=torch.full((9,), 4.0))], vector=start)
    torch.testing.assert_close(aggregator.aggregate(again)[0], start + 3.0)


def test_safa_a_deprecated_client_counts_as_having_the_current_model(toys) -> None:
    scheduler = LagTolerant()
    aggregator = ready(toys, CachedModels(scheduler, weight_base="uniform"))
    aggregator.aggregate(make_step(toys, [toys.make_update(2, delta=torch.full((9,), 100.0))]))
    scheduler.deprecated = (2,)
    current = toys.start_model().vector + 8.0
    update = toys.make_update(0, version=VERSION, delta=torch.zeros(9))
    vector, _ = aggregator.aggregate(make_step(toys, [update], vector=current))
    torch.testing.assert_close(vector, toys.start_model().vector + 4.0)


# FedAT


def test_fedat_slow_tiers_have_the_fast_ones_counts() -> None:
    assert tier_weights([3, 1], 2) == [0.25, 0.75]
    assert tier_weights([5, 3, 2], 3) == [0.2, 0.3, 0.5]


@given(counts=st.lists(st.integers(1, 1000), min_size=1, max_size=9), missing=st.integers(0, 3))
def test_fedat_weights_sum_to_one_and_are_equal_until_all_have_reported(counts: list[int], missing: int) -> None:
    weights = tier_weights(counts, len(counts) + missing)
    assert sum(weights) == pytest.approx(1.0)
    if missing:
        assert weights == [1 / len(counts)] * len(counts)


def in_tiers(toys, seconds: list[float]) -> Tiered:
    """Two tiers, after a first round in which the clients took so many seconds; others are in the slow one."""
    scheduler = Tiered(tiers=2)
    scheduler.prepare(toys.start_model(), 0)
    scheduler.begin(range(len(seconds)), 0.0)
    for client, duration in enumerate(seconds):
        scheduler.on_update(toys.make_update(client, arrived_at=duration), duration)
    assert scheduler.tiers == 2
    return scheduler


def test_fedat_averages_the_latest_models_of_the_tiers(toys) -> None:
    aggregator = ready(toys, TierModels(Uniform(), in_tiers(toys, [1.0, 1.0, 2.0, 2.0])))
    everybody = [toys.make_update(c, version=VERSION, delta=torch.full((9,), float(c))) for c in range(4)]
    start = toys.start_model().vector
    vector, weights = aggregator.aggregate(make_step(toys, everybody, vector=start))
    torch.testing.assert_close(vector, start + (0.5 + 2.5) / 2)
    assert weights == pytest.approx([0.25] * 4)
    fast = [toys.make_update(c, 1, VERSION, delta=torch.full((9,), 6.0)) for c in range(2)]
    vector, weights = aggregator.aggregate(make_step(toys, fast, vector=start))
    torch.testing.assert_close(vector, start + (1 / 3) * 6.0 + (2 / 3) * 2.5)
    assert weights == pytest.approx([1 / 6] * 2)


def test_fedat_counts_rounds_of_a_tier_and_not_uploads(toys) -> None:
    """One fast client and three slow ones, of whom two came later: after two rounds to one they have two thirds."""
    aggregator = ready(toys, TierModels(Uniform(), in_tiers(toys, [1.0, 2.0])))
    start = toys.start_model().vector
    slow = [toys.make_update(c, version=VERSION, delta=torch.full((9,), 3.0)) for c in range(1, 4)]
    aggregator.aggregate(make_step(toys, slow, vector=start))
    for job in range(2):
        fast = toys.make_update(0, job, VERSION, delta=torch.full((9,), 6.0))
        vector, weights = aggregator.aggregate(make_step(toys, [fast], vector=start))
    torch.testing.assert_close(vector, start + (1 / 3) * 6.0 + (2 / 3) * 3.0)
    assert weights == pytest.approx([1 / 3])
