"""HeteRo-Select's compression: the share of a round, of a client, and of the memory."""

from __future__ import annotations

import pytest
import torch

from fedmtl.compression import SharedRandomness
from fedmtl.errors import ConfigError
from strategies.recipes.catalogue import build_strategy
from strategies.selectors.hetero_select import HeteroSelect
from strategies.selectors.score_compression import ScoreCompression


def shares(score: float = 1.0, mean: float = 1.0, **options) -> ScoreCompression:
    selector = HeteroSelect()
    row = selector.candidates.row(7)  # first, for it may move the column
    selector.candidates["score"][row] = score
    selector.mean_score = mean
    return ScoreCompression(selector, **{"share": 0.2, "rounds": 100} | options)


def test_the_share_of_a_round_is_all_at_first_and_then_falls_along_a_cosine() -> None:
    found = [shares().share_of_round(version) for version in range(130)]
    assert found[0] == 1.0
    assert found[1] == pytest.approx(0.2 * 1.4)
    assert found[50] == pytest.approx(0.2, abs=0.01)
    assert found[1:100] == sorted(found[1:100], reverse=True)
    assert found[99:] == [pytest.approx(0.2 * 0.6)] * 31
    assert shares(share=0.1).share_of_round(99) == 0.08
    assert shares(share=0.9).share_of_round(1) == 1.0


def test_a_clients_share_follows_its_score_and_the_memory_the_round() -> None:
    assert shares(0.8, 0.4)(7, 50)["share"] == pytest.approx(2 * shares().share_of_round(50))
    assert shares(0.0, 0.4)(7, 50)["share"] == 0.005
    assert shares(1.0, 0.1)(7, 50)["share"] == 1.0
    assert shares(0.0, 0.0)(7, 50)["share"] == shares().share_of_round(50)
    assert shares()(7, 0)["memory"] == 0.85
    assert shares()(7, 99)["memory"] == pytest.approx(0.85 + 0.12 * (1 - 0.12))


def test_clients_of_a_round_send_as_much_as_their_scores_say_and_the_server_makes_updates_of_it(toys) -> None:
    options = {"clients_per_round": 4, "score_compression": True, "kept": 0.5}
    strategy = build_strategy("heteroselect", options)
    seen = []
    order = strategy._order
    strategy._order = lambda assignment: seen.append(order(assignment)) or seen[-1]
    _, trace = toys.run(strategy, toys.Fleet(12, lambda client, job: 1.0 + client % 5), versions=20)
    assert not trace.rejections
    assert all(update.delta.shape == (toys.LAYOUT.size,) for update in trace.received)
    found = {order.compression.options["share"] for order in seen if order.base.version > 0}
    assert len(found) > 10
    assert {order.compression.options["share"] for order in seen if order.base.version == 0} == {1.0}
    whole = build_strategy("heteroselect", options | {"score_compression": False})
    toys.run(whole, toys.Fleet(12, lambda client, job: 1.0 + client % 5), versions=20)
    assert not torch.equal(whole.model.vector, strategy.model.vector)


def test_updates_are_not_compressed_twice() -> None:
    with pytest.raises(ConfigError, match=r"compression\.name"):
        build_strategy("heteroselect", {"score_compression": True}).compress(SharedRandomness())
