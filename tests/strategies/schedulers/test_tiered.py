"""FedAT's tiers."""

from __future__ import annotations

import pytest

from fedmtl.errors import ConfigError
from strategies.aggregators import GradientAggregator
from strategies.core.strategy import Strategy
from strategies.schedulers import Tiered
from strategies.weightings import Uniform


def run(toys, tiers: int, clients: int, duration, *, versions: int = 12, **options):
    scheduler = Tiered(tiers=tiers, **options)
    _, trace = toys.run(
        Strategy(scheduler, GradientAggregator(Uniform())), toys.Fleet(clients, duration), versions=versions
    )
    return scheduler, trace


def test_tiers_are_cut_by_measured_time_with_ties_by_number(toys) -> None:
    scheduler, trace = run(toys, 3, 6, lambda client, job: (5.0, 1.0, 5.0, 1.0, 9.0, 1.0)[client])
    assert {c: scheduler.tier_of(c) for c in range(6)} == {1: 0, 3: 0, 5: 1, 0: 1, 2: 2, 4: 2}
    assert {update.client for update in trace.aggregations[0].updates} == set(range(6))


def test_after_the_first_round_each_tier_has_rounds_of_its_own(toys) -> None:
    scheduler, trace = run(toys, 2, 6, lambda client, job: 1.0 if client < 3 else 4.0, versions=11)
    later = [tuple(update.client for update in a.updates) for a in trace.aggregations[1:]]
    assert set(later) == {(0, 1, 2), (3, 4, 5)}
    assert later.count((0, 1, 2)) == 8
    assert scheduler.tiers == 2
    # The slow tier ends its first own round when the fast one has had three; at the tie its orders came first.
    slow = next(a for a in trace.aggregations[1:] if a.updates[0].client == 3)
    assert slow.staleness == (3, 3, 3)


def test_there_are_no_more_tiers_than_clients_that_answered(toys) -> None:
    scheduler, _ = run(toys, 5, 2, lambda client, job: 1.0 + client)
    assert scheduler.tiers == 2
    assert scheduler.tier_of(99) == 1  # whoever comes later is slow


def test_a_tiers_round_may_be_of_some_of_its_clients(toys) -> None:
    _, trace = run(toys, 2, 8, lambda client, job: 1.0 + client, clients_per_round=2)
    assert {len(a.updates) for a in trace.aggregations[1:]} == {2}


def test_no_tiers_are_refused() -> None:
    with pytest.raises(ConfigError, match="tiers = 0"):
        Tiered(tiers=0)
