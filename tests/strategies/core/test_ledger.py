from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.similarity import LARGEST
from strategies.core.ledger import Ledger

FOLLOWS = {"similarity": LARGEST}
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
    ledger = Ledger(FOLLOWS)
    assert ledger.frequency(3) == 0.0
    assert ledger.mean_frequency is None
    assert ledger.mean("similarity") is None


def test_what_no_part_asks_for_is_not_followed(toys) -> None:
    ledger = Ledger()
    ledger.received(toys.make_update(terms={"similarity": 40.0}))
    assert ledger.mean("similarity") is None
    assert not ledger.followed


@given(
    reports=st.lists(
        st.tuples(st.integers(0, 5), st.one_of(st.none(), st.floats(0, 180), st.sampled_from(NO_SIMILARITIES)))
    )
)
def test_the_mean_of_a_term_is_that_of_the_latest_reports_that_are_credible(toys, reports: list) -> None:
    ledger, latest = Ledger(FOLLOWS), {}
    for client, value in reports:
        ledger.received(toys.make_update(client, terms=toys.fedqs_terms(similarity=value)))
        if value is not None and value not in NO_SIMILARITIES:
            latest[client] = value
    assert ledger.reports("similarity").left_out == sum(value in NO_SIMILARITIES for _, value in reports)
    if latest:
        assert ledger.mean("similarity") == pytest.approx(math.fsum(latest.values()) / len(latest), abs=1e-9)
    else:
        assert ledger.mean("similarity") is None


def test_a_ledger_comes_back_from_its_state(toys) -> None:
    ledger = Ledger(FOLLOWS)
    ledger.met([4, 1])
    ledger.applied([toys.make_update(4), toys.make_update(4), toys.make_update(1)])
    ledger.received(toys.make_update(4, terms=toys.fedqs_terms(similarity=40.0)))
    ledger.received(toys.make_update(1, terms=toys.fedqs_terms(similarity=math.nan)))
    again = Ledger(FOLLOWS)
    again.load_state_dict(toys.through_json(ledger.state_dict()))
    assert vars(again) == vars(ledger)


def test_parts_that_follow_a_term_must_agree_on_what_is_credible() -> None:
    assert set(Ledger({"loss": 5.0}, {"loss": 5.0, "angle": 1.0}).followed) == {"loss", "angle"}
    with pytest.raises(ConfigError, match="two parts follow the term 'loss', one up to 5, one up to 7"):
        Ledger({"loss": 5.0}, {"loss": 7.0})
