"""Curricula over clients, and the share that the server sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from strategies.recipes.catalogue import build_strategy
from strategies.selectors.paced import PacedSelector, paced


@given(start=st.floats(0.01, 1.0), versions=st.integers(1, 50))
def test_the_share_rises_to_one_and_stays_there(start: float, versions: int) -> None:
    shares = [paced(version, start, versions) for version in range(versions + 5)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(start)
    assert set(shares[versions:]) == {1.0}


def told(toys, order: str, start: float = 0.3, rounds: int = 10) -> PacedSelector:
    """A selector of ten clients, of which client c reported the loss (7 c) mod 10."""
    selector = PacedSelector(client_order=order, start=start, versions=rounds)
    selector.prepare(toys.start_model(), 0)
    selector.free(range(10))
    for client in range(10):
        selector.heard(toys.make_update(client, task_losses=(float(7 * client % 10),)))
    return selector


@pytest.mark.parametrize(("order", "first"), [("easy_first", {0, 3, 6}), ("hard_first", {7, 4, 1})])
def test_a_round_is_drawn_from_the_first_clients_by_loss(toys, order: str, first: set[int]) -> None:
    assert set(told(toys, order).choose(3)) == first


def test_the_pool_never_shrinks_and_is_full_at_the_end(toys) -> None:
    selector = told(toys, "easy_first")
    sizes = []
    for _ in range(15):
        chosen = selector.choose(2)
        assert len(set(chosen)) == 2
        sizes.append(len(selector.pool(2)))
    assert sizes == sorted(sizes)
    assert sizes[0] == 3
    assert sizes[10:] == [10] * 5


@pytest.mark.parametrize("order", ["easy_first", "hard_first"])
def test_who_never_reported_comes_first(toys, order: str) -> None:
    selector = told(toys, order)
    selector.free((10, 11, 12))
    assert set(selector.choose(3)) <= {10, 11, 12} | set(told(toys, order).choose(3))
    assert {10, 11, 12} <= {int(client) for client in selector.candidates.clients[selector.pool(3)]}


def test_fewer_idle_clients_than_asked_for_are_all_chosen(toys) -> None:
    selector = told(toys, "easy_first")
    for client in range(8):
        selector.leave(client)
    assert set(selector.choose(5)) == {8, 9}


def test_an_order_of_clients_needs_rounds_of_a_part_of_them() -> None:
    with pytest.raises(ConfigError, match="clients_per_round"):
        build_strategy("curriculum", {"clients_per_round": None})
    assert build_strategy("curriculum", {"clients_per_round": None, "client_order": "none"}).name == "curriculum"
