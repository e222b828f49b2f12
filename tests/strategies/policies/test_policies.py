from __future__ import annotations

import pytest
import torch

from fedmtl.protocol import Arrival, GlobalModel, TrainSettings
from strategies.aggregators import GradientAggregator
from strategies.core.ledger import Ledger
from strategies.core.strategy import Strategy
from strategies.policies import FedQSPolicy, Plain, Proximal
from strategies.schedulers import Buffered
from strategies.weightings import Uniform


def instruct(policy, model: GlobalModel, ledger: Ledger, client: int = 1):
    return policy.instruct(client, TrainSettings(), model, ledger)


def step(toys, policy: FedQSPolicy, ledger: Ledger) -> GlobalModel:
    """A server step with updates of clients 1, 1 and 2, who reported 80 and 20 degrees."""
    reports = [{}, {"similarity": 80.0}, {"similarity": 20.0}]
    keys = [(1, 0), (1, 1), (2, 0)]
    updates = [toys.make_update(*key, terms=terms) for key, terms in zip(keys, reports, strict=True)]
    for update in updates:
        ledger.received(update)
    ledger.applied(updates)
    before = toys.start_model()
    after = GlobalModel(1, before.vector + torch.arange(9.0), toys.LAYOUT)
    policy.on_aggregated(before, after, updates, ledger)
    return after


def test_before_the_first_step_there_is_nothing_to_compare_with(toys) -> None:
    sent = instruct(FedQSPolicy(), toys.start_model(), Ledger(FedQSPolicy.follows))
    assert sent.terms["frequency"] == 0.0
    assert not {"frequency_mean", "similarity_mean"} & set(sent.terms)
    assert sent.vectors == {}


def test_a_client_is_told_its_share_the_means_and_the_global_step(toys) -> None:
    policy, ledger = FedQSPolicy(), Ledger(FedQSPolicy.follows)
    after = step(toys, policy, ledger)
    sent = instruct(policy, after, ledger)
    assert sent.terms["frequency"] == pytest.approx(2 / 3)
    assert sent.terms["frequency_mean"] == 0.5
    assert sent.terms["similarity_mean"] == 50.0
    torch.testing.assert_close(sent.vectors["global_step"], torch.arange(9.0))
    assert instruct(policy, after, ledger, 2).vectors["global_step"] is sent.vectors["global_step"]
    assert instruct(policy, after, ledger, 3).terms["frequency"] == 0.0


def test_the_mean_similarity_that_is_sent_is_that_of_the_last_step(toys) -> None:
    policy, ledger = FedQSPolicy(), Ledger(FedQSPolicy.follows)
    after = step(toys, policy, ledger)
    ledger.received(toys.make_update(2, 1, terms={"similarity": 100.0}))
    assert instruct(policy, after, ledger).terms["similarity_mean"] == 50.0


def test_the_mean_frequency_can_be_that_of_all_clients(toys) -> None:
    policy, ledger = FedQSPolicy(fbar="all"), Ledger(FedQSPolicy.follows)
    ledger.met(range(10))
    assert "frequency_mean" not in instruct(policy, toys.start_model(), ledger).terms
    assert instruct(policy, step(toys, policy, ledger), ledger).terms["frequency_mean"] == 0.1


def test_clients_that_form_the_global_step_themselves_are_sent_none(toys) -> None:
    policy, ledger = FedQSPolicy(lg_source="since_last"), Ledger(FedQSPolicy.follows)
    sent = instruct(policy, step(toys, policy, ledger), ledger)
    assert sent.vectors == {}
    assert policy.constants["since_last"] is True


def test_the_policy_comes_back_from_its_state(toys) -> None:
    policy, ledger, again = FedQSPolicy(), Ledger(FedQSPolicy.follows), FedQSPolicy()
    after = step(toys, policy, ledger)
    again.load_state_dict(toys.through_json(policy.state_dict()))
    sent, resent = instruct(policy, after, ledger), instruct(again, after, ledger)
    assert sent.terms == resent.terms
    assert torch.equal(sent.vectors["global_step"], resent.vectors["global_step"])


def test_plain_and_proximal_settings(toys) -> None:
    settings = TrainSettings(proximal=0.1)
    model, ledger = toys.start_model(), Ledger(FedQSPolicy.follows)
    assert Plain().instruct(0, settings, model, ledger).settings is settings
    assert Proximal(mu=0.5).instruct(0, settings, model, ledger).settings.proximal == 0.5


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        ({}, None),
        ({"client_type": 5.0, "feedback": 1.0, "similarity": 180.0}, None),
        ({"similarity": 500.0}, "claims similarity = 500, expected 0 to 180"),
        ({"feedback": 0.0}, None),
        ({"feedback": 0.5}, "claims the feedback bit 0.5"),
        ({"client_type": 6.0}, "claims client_type = 6, expected 1 to 5"),
        ({"client_type": 0.5}, "claims client_type = 0.5, expected 1 to 5"),
        ({"client_type": 1.5}, "claims the client type 1.5, which there is not"),
    ],
)
def test_types_and_bits_that_there_are_not_are_turned_down(toys, terms: dict[str, float], fault: str | None) -> None:
    strategy = toys.ready(Strategy(Buffered(buffer_size=1), GradientAggregator(Uniform()), FedQSPolicy()))
    strategy.orders(strategy.begin(range(1), 0.0).decision.assignments)
    reaction = strategy.on_event(Arrival(1.0, toys.make_update(terms=terms)))
    assert [rejection.reason for rejection in reaction.rejections] == ([] if fault is None else [fault])
