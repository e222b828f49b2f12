from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.core.ledger import Ledger

NO_SIMILARITIES = (math.nan, math.inf, 180.1, 1e300, -1e-300)


@given(clients=st.lists(st.integers(0, 20), min_size=1))
def test_frequencies_are_shares_of_all_aggregated_updates(toys, clients: list[int]) -> None:
    ledger = Ledger()
    ledger.applied([toys.make_update(client) for client in clients])
    frequencies = [ledger.frequency(client) for client in range(21)]
    assert all(f >= 0 for f in frequencies)
    assert math.fsum(frequencies) == pytest.approx(1.0)
    active = [f for f in frequencies if f > 0]
    assert ledger.mean_frequency == pytest.approx(math.fsum(active) / len(active))
    assert ledger.total == len(clients)


def test_before_the_first_aggregation_nothing_is_known() -> None:
    ledger = Ledger()
    assert ledger.frequency(3) == 0.0
    assert ledger.mean_frequency is None
    assert ledger.mean_similarity is None


@given(
    reports=st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.none(), st.floats(0, 180), st.sampled_from(NO_SIMILARITIES)))
    )
)
def test_the_mean_similarity_is_that_of_the_latest_reports_that_can_be_one(toys, reports: list) -> None:
    ledger, latest = Ledger(), {}
    for client, value in reports:
        ledger.received(toys.make_update(client, similarity=value))
        if value is not None and value not in NO_SIMILARITIES:
            latest[client] = value
    assert ledger.non_finite == sum(value in NO_SIMILARITIES for _, value in reports)
    if latest:
        assert ledger.mean_similarity == pytest.approx(math.fsum(latest.values()) / len(latest), abs=1e-9)
    else:
        assert ledger.mean_similarity is None


def test_a_ledger_comes_back_from_its_state(toys) -> None:
    ledger = Ledger()
    ledger.met([4, 1])
    ledger.applied([toys.make_update(4), toys.make_update(4), toys.make_update(1)])
    ledger.received(toys.make_update(4, similarity=40.0))
    ledger.received(toys.make_update(1, similarity=math.nan))
    again = Ledger()
    again.load_state_dict(toys.through_json(ledger.state_dict()))
    assert vars(again) == vars(ledger)
