"""Weights, staleness and rubbish, for every strategy by its name; test_random_fleets.py has what else holds for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.components import options_of
from fedmtl.randomness import derive_seed
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import STRATEGIES, build_strategy

SMALL = {"buffer_size": 3, "tiers": 3, "q_max": 10, "round_seconds": 6.0, "first_steps": 2, "coordinates": 4}
FAULTS = ("nan", "version", "failure", "duplicate", "stranger")
WITHIN_ONE = {"fedbuff", "fedasync", "fedcompass", "safa", "fedat", "dfedsam", "dimat"}
"""Their weights sum to less where updates are stale, or where others than those of the step count, too."""

every_strategy = pytest.mark.parametrize("name", STRATEGIES)
worlds = st.fixed_dictionaries(
    {
        "clients": st.integers(1, 8),
        "seed": st.integers(0, 2**32),
        "losses": st.sampled_from([0, 100]),
        "faults": st.sampled_from([0, 200]),
    }
)


def make(name: str) -> Strategy:
    options: dict[str, Any] = {
        option.name: SMALL[option.name]
        for option in options_of(STRATEGIES[name])
        if option.name in SMALL and (name, option.name) != ("fedcompass", "first_steps")
    }
    return build_strategy(name, options)


def make_fleet(toys, world: dict):
    def draw(purpose: str, client: int, job: int, below: int) -> int:
        return derive_seed(world["seed"], purpose, client, job) % below

    def outage(client: int, job: int) -> tuple[float, float | None] | None:
        if draw("lost", client, job, 1000) >= world["losses"]:
            return None
        return 0.5 * draw("after", client, job, 5), None if draw("for good", client, job, 4) == 0 else 2.5

    def fault(client: int, job: int) -> str:
        hit = draw("fault", client, job, 1000) < world["faults"]
        return FAULTS[draw("which", client, job, len(FAULTS))] if hit else ""

    quirks = toys.Quirks(outage=outage, fault=fault)
    return toys.Fleet(world["clients"], lambda c, j: 1.0 + draw("duration", c, 0, 9), quirks)


@every_strategy
@settings(max_examples=6, deadline=None)
@given(world=worlds)
def test_staleness_is_true_and_weights_are_shares(toys, name: str, world: dict) -> None:
    _, trace = toys.run(make(name), make_fleet(toys, world), events=80)
    for aggregation in trace.aggregations:
        for update, tau in zip(aggregation.updates, aggregation.staleness, strict=True):
            assert tau == aggregation.version - 1 - update.base_version >= 0
        assert min(aggregation.weights) >= 0.0
        total = sum(aggregation.weights)
        assert total <= 1.0 + 1e-9
        assert name in WITHIN_ONE or total == pytest.approx(1.0, abs=1e-9)


@every_strategy
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_never_changes_the_model(toys, name: str, bad: float) -> None:
    """Client 1 sends nothing else; whatever is aggregated, its updates are not among it."""
    fleet = toys.Fleet(5, lambda client, job: 1.0 + client)
    taken = fleet._train

    def spoiled(key):
        update = taken(key)
        if key.client == 1:
            update.delta[2] = bad
        return update

    fleet._train = spoiled
    _, trace = toys.run(make(name), fleet, events=60)
    assert [rejection.reason for rejection in trace.rejections if rejection.update.client == 1]
    assert {update.client for a in trace.aggregations for update in a.updates} <= {0, 2, 3, 4}
    assert all(torch.isfinite(vector).all() for vector in trace.vectors)
    assert len(trace.vectors) > 1
