"""FedSpeed's server step."""

from __future__ import annotations

import pytest
import torch

from fedmtl.errors import ConfigError
from strategies.aggregators.dual import DualAveraged
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy
from strategies.schedulers import Buffered
from strategies.weightings import DataSize, Uniform


@pytest.mark.parametrize("clients_per_round", [None, 3])
def test_the_server_adds_the_mean_of_all_clients_dual_variables(toys, clients_per_round: int | None) -> None:
    """The clients of the toy world keep real dual variables; the server must know their mean without asking."""
    strategy = build_strategy("fedspeed", {"clients_per_round": clients_per_round})
    fleet = toys.Fleet(8, lambda client, job: 1.0 + client % 3)
    _, trace = toys.run(strategy, fleet, versions=12)
    h = {client: torch.zeros(9) for client in range(8)}
    w = toys.start_model().vector
    for aggregation, vector in zip(trace.aggregations, trace.vectors, strict=True):
        for update in aggregation.updates:
            h[update.client] += update.delta
        mean = torch.stack(list(h.values())).mean(0)
        w = w + torch.stack([update.delta for update in aggregation.updates]).mean(0)
        w[:8] += mean[:8]  # the last entry is a buffer
        torch.testing.assert_close(vector, w, rtol=1e-5, atol=1e-6)
    kept = {client: state["dual"] for client, state in fleet.states.items() if "dual" in state}
    assert kept
    assert all(torch.equal(dual, sum_of(trace, client)) for client, dual in kept.items())


def sum_of(trace, client: int) -> torch.Tensor:
    deltas = [update.delta for update in trace.received if update.client == client]
    total = deltas[0]
    for delta in deltas[1:]:
        total = total + delta
    return total


def test_unequal_weights_and_heads_of_owners_follow_the_formula(toys) -> None:
    aggregator = DualAveraged(DataSize())
    aggregator.prepare(toys.start_model(), 0)
    h, heads = torch.zeros(9), toys.LAYOUT.heads
    for job in range(3):
        updates = [toys.make_update(client, job, tasks=tasks) for client, tasks in enumerate([(0, 1), (0,), (0,)])]
        for update in updates[1:]:
            update.delta[heads[1]] = 0.0
        ledger = Ledger()
        ledger.met(range(5))
        w = toys.start_model().vector
        vector, weights = aggregator.aggregate(Step(toys.start_model(), updates, {}, "all", frozenset(), ledger))
        wanted = w + sum(p * update.delta for p, update in zip(weights, updates, strict=True))
        wanted[heads[1]] = (w + updates[0].delta)[heads[1]]
        h += sum(update.delta for update in updates) / 5
        wanted[:8] += h[:8]
        # Roundings of a few terms below 5.
        torch.testing.assert_close(vector, wanted, atol=1e-5, rtol=0)


def test_a_scheduler_that_drops_updates_is_refused() -> None:
    with pytest.raises(ConfigError, match="dual variable"):
        Strategy(Buffered(buffer_size=4, max_staleness=1), DualAveraged(Uniform()))


def test_its_state_goes_through_a_checkpoint(toys) -> None:
    strategy = build_strategy("fedspeed", {})
    toys.run(strategy, toys.Fleet(4, lambda client, job: 1.0), versions=3)
    state = toys.through_json(strategy.aggregator.state_dict())
    other = DualAveraged(Uniform())
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["dual"], strategy.aggregator.state_dict()["dual"])
