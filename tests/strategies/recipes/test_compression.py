"""Strategies whose clients compress their updates."""

from __future__ import annotations

import itertools

import pytest
import torch

from fedmtl.compression import Compressor, SharedRandomness, TopEntries
from fedmtl.errors import ConfigError
from strategies.recipes.catalogue import build_strategy

EVERYTHING = ["fedqs", "fedavg", "fedbuff", "fedasync", "fedcompass", "dfedsam"]


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("compressor", [SharedRandomness(coordinates=4), TopEntries(share=0.3)])
def test_any_strategy_may_have_its_updates_compressed(toys, name: str, compressor: Compressor) -> None:
    strategy = build_strategy(name, {})
    strategy.compress(compressor)
    _, trace = toys.run(strategy, toys.Fleet(12, lambda client, job: 1.0 + client % 5), versions=20)
    assert not trace.rejections
    assert all(update.delta.shape == (9,) for update in trace.received)
    assert (strategy.model.vector - toys.start_model().vector).abs().max() > 0.01


def test_ferret_is_fedavg_with_compressed_updates(toys) -> None:
    ferret = build_strategy("ferret", {"coordinates": 4})
    fedavg = build_strategy("fedavg", {"weight_base": "uniform"})
    fedavg.compress(SharedRandomness(coordinates=4))
    fleets = [toys.Fleet(6, lambda client, job: 1.0) for _ in range(2)]
    (_, first), (_, second) = (toys.run(s, f, versions=8) for s, f in zip((ferret, fedavg), fleets, strict=True))
    assert all(map(torch.equal, first.vectors, second.vectors))


def test_ferret_with_momentum_is_fedavgm_with_compressed_updates(toys) -> None:
    ferret = build_strategy("ferret", {"coordinates": 4, "momentum": 0.9})
    fedavgm = build_strategy("fedavgm", {"weight_base": "uniform", "beta": 0.9})
    fedavgm.compress(SharedRandomness(coordinates=4))
    fleets = [toys.Fleet(6, lambda client, job: 1.0) for _ in range(2)]
    (_, first), (_, second) = (toys.run(s, f, versions=8) for s, f in zip((ferret, fedavgm), fleets, strict=True))
    for mine, theirs in zip(first.vectors, second.vectors, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_ferrets_rate_falls_to_nothing_in_as_many_rounds_as_are_set(toys) -> None:
    def steps(**options: object) -> list[torch.Tensor]:
        strategy = build_strategy("ferret", {"coordinates": 4, "server_rate": 2.0, **options})
        _, trace = toys.run(strategy, toys.Fleet(6, lambda client, job: 1.0), versions=6)
        start = toys.start_model().vector
        moves = [after - before for before, after in itertools.pairwise([start, *trace.vectors])]
        return [move[toys.LAYOUT.trainable] for move in moves]  # statistics are averaged, whatever the rate

    constant, falling = steps(), steps(decay_rounds=4)
    torch.testing.assert_close(falling[0], constant[0])
    assert not torch.allclose(falling[1], constant[1])
    assert falling[3].abs().max() > 0
    assert falling[4].abs().max() == falling[5].abs().max() == 0


def test_clients_of_one_version_share_the_random_vectors_and_those_of_another_do_not(toys) -> None:
    strategy = toys.ready(build_strategy("ferret", {}))
    seeds = [strategy._compression(version).seed for version in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_an_upload_that_no_compressor_made_is_rejected_and_the_run_goes_on(toys) -> None:
    quirks = toys.Quirks()
    fleet = toys.Fleet(4, lambda client, job: 1.0 + client, quirks)
    taken = fleet._train

    def spoiled(key):
        update = taken(key)
        if key.client == 2:
            update.delta = update.delta[:-1]
        return update

    fleet._train = spoiled
    loop, trace = toys.run(build_strategy("ferret", {"coordinates": 4}), fleet, versions=5)
    assert loop.ended == "versions"
    assert {rejection.update.client for rejection in trace.rejections} == {2}
    assert "coordinates" in trace.rejections[0].reason


@pytest.mark.parametrize("name", ["fedspeed", "fsmgda"])
def test_what_needs_exact_updates_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="exact-updates"):
        build_strategy(name, {}).compress(SharedRandomness())


def test_updates_are_compressed_once() -> None:
    with pytest.raises(ConfigError, match=r"compression\.name"):
        build_strategy("ferret", {}).compress(SharedRandomness())
