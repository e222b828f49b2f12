"""Gossip (spec baselines, property 18)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.protocol import GlobalModel
from strategies.aggregators.gossip import Gossip
from strategies.aggregators.topologies import Topology, mixing
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.recipes.catalogue import build_strategy

NODES = 12


class Net:
    """Twelve clients of a gossip aggregator, trained by hand."""

    def __init__(self, toys, gossip: Gossip) -> None:
        self.toys, self.gossip, self.version = toys, gossip, 0
        self.ledger = Ledger()
        self.ledger.met(range(NODES))
        gossip.prepare(toys.start_model(), 5)

    def round(self, clients=range(NODES)) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What they started from, what they trained to, and the mean afterwards."""
        model = GlobalModel(self.version, self.toys.start_model().vector, self.toys.LAYOUT)
        bases = torch.stack([self.gossip.model_for(c, model, self.ledger).vector for c in range(NODES)])
        updates = [self.toys.make_update(c, self.version, self.version) for c in clients]
        trained = bases.clone()
        for update in updates:
            trained[update.client] += update.delta
        vector, weights = self.gossip.aggregate(Step(model, updates, {}, "all", frozenset(), self.ledger))
        assert weights == (1 / NODES,) * len(updates)
        self.version += 1
        return bases, trained, vector

    def models(self) -> torch.Tensor:
        return torch.stack(list(self.gossip.own_models().values()))


@pytest.mark.parametrize("order", ["after", "before"])
@pytest.mark.parametrize("name", ["ring", "full", "random", "expander"])
def test_the_mean_of_the_models_is_that_of_what_was_trained(toys, name: str, order: str) -> None:
    net = Net(toys, Gossip(topology=name, steps=2, mix_order=order))
    for _ in range(4):
        _, trained, vector = net.round()
        torch.testing.assert_close(vector, trained.mean(0))
        torch.testing.assert_close(net.models().mean(0), trained.mean(0))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_q_gossip_steps_are_one_with_w_to_the_q(toys, steps: int) -> None:
    net = Net(toys, Gossip(topology="ring", steps=steps))
    w = torch.linalg.matrix_power(mixing(Topology("ring").edges(NODES, 5, 0), NODES).to_dense(), steps)
    for _ in range(3):
        _, trained, _ = net.round()
        torch.testing.assert_close(net.models(), w @ trained)


def test_mixing_before_training_changes_what_stands_between_rounds_and_not_the_course(toys) -> None:
    after, before = (Net(toys, Gossip(mix_order=order)) for order in ("after", "before"))
    for _ in range(3):
        mine, theirs = after.round(), before.round()
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(before.models(), theirs[1])
    assert not torch.equal(after.models(), before.models())


@settings(max_examples=25, deadline=None)
@given(present=st.sets(st.integers(0, NODES - 1), min_size=1))
def test_a_client_that_was_lost_keeps_its_model_and_the_mean_is_kept_too(toys, present: set[int]) -> None:
    net = Net(toys, Gossip(topology="expander"))
    net.round()
    bases, trained, vector = net.round(sorted(present))
    torch.testing.assert_close(vector, trained.mean(0))
    for client in set(range(NODES)) - present:
        assert torch.equal(net.models()[client], bases[client])


def test_a_newcomer_starts_with_the_mean(toys) -> None:
    net = Net(toys, Gossip(topology="ring"))
    _, _, mean = net.round()
    net.ledger.met((99,))
    assert torch.equal(net.gossip.model_for(99, toys.start_model(1), net.ledger).vector, mean)


def test_clients_may_start_from_models_of_their_own_which_are_draws_like_the_first(toys) -> None:
    net = Net(toys, Gossip(topology="ring", start="own"))
    first = toys.start_model()
    starts = [net.gossip.model_for(c, first, net.ledger).vector for c in range(NODES)]
    assert len({tuple(start.tolist()) for start in starts}) == NODES
    part = first.layout.trainable
    for start in starts:
        assert torch.equal(start[part].sort().values, first.vector[part].sort().values)
    again = Net(toys, Gossip(topology="ring", start="own"))
    assert torch.equal(again.gossip.model_for(7, first, again.ledger).vector, starts[7])


def test_each_neighbour_costs_a_model_each_way_in_each_gossip_step(toys) -> None:
    net = Net(toys, Gossip(topology="ring", steps=3))
    assert net.gossip.transfers(4, 0, net.ledger) == (6, 6)
    merging = Net(toys, Gossip(topology="full", steps=0))
    assert merging.gossip.transfers(4, 0, merging.ledger) == (0, NODES - 1)
    assert merging.gossip.neighbours(4, 0, merging.ledger) == pytest.approx({c: 1 / 12 for c in range(12) if c != 4})


@pytest.mark.parametrize("name", ["ring", "full", "random", "expander"])
def test_the_shares_of_a_clients_neighbours_are_its_row_of_w(toys, name: str) -> None:
    """What a client keeps for itself is the rest, so that a row sums to 1."""
    gossip = Net(toys, Gossip(topology=name, steps=0)).gossip
    ledger = Ledger()
    ledger.met(range(NODES))
    for version in range(3):
        w = mixing(Topology(name).edges(NODES, 5, version), NODES)
        w = w.to_dense() if w.is_sparse else w
        for client in range(NODES):
            shares = gossip.neighbours(client, version, ledger)
            others = {other: float(w[client, other]) for other in range(NODES) if other != client and w[client, other]}
            assert shares == pytest.approx(others)
            assert 1.0 - sum(shares.values()) == pytest.approx(float(w[client, client]))
            assert min(shares.values()) > 0.0


def test_what_was_sent_is_never_written_to(toys) -> None:
    net = Net(toys, Gossip(topology="ring"))
    net.round()
    sent = net.gossip.model_for(3, toys.start_model(1), net.ledger).vector
    kept = sent.clone()
    net.round()
    assert torch.equal(sent, kept)


def even(client: int, job: int) -> float:
    return 1.0 + client % 3


def test_on_the_full_graph_without_a_climb_it_is_fedavg(toys) -> None:
    options = {"rho": 0.0, "topology": "full"}
    _, gossip = toys.run(build_strategy("dfedsam", options), toys.Fleet(8, even), versions=20)
    _, fedavg = toys.run(build_strategy("fedavg", {"weight_base": "uniform"}), toys.Fleet(8, even), versions=20)
    for mine, theirs in zip(gossip.vectors, fedavg.vectors, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_more_gossip_brings_the_models_together(toys) -> None:
    def spread(steps: int) -> float:
        strategy = build_strategy("dfedsam", {"gossip_steps": steps})
        toys.run(strategy, toys.Fleet(10, even), versions=10)
        models = torch.stack(list(strategy.aggregator.own_models().values()))
        return float((models - models.mean(0)).norm())

    assert spread(1) > spread(3) > spread(9) > 0
