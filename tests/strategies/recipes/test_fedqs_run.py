"""FedQS as a whole: typed clients, adapted rates, weights, in a loop over unequal clients."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.client_types import type_name
from fedmtl.protocol import Update
from fedmtl.randomness import derive_seed
from simulations.presets import preset_tables
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy

_PRESET = preset_tables("fedqs-reference")["strategy"]
THEIRS = {key: value for key, value in _PRESET.items() if key not in ("name", "buffer_size", "aggregation")}
"""Every fault of the authors' code, at the size and in the mode of a test."""


def fleet(toys, **quirks):
    return toys.Fleet(15, lambda client, job: 1.0 + 3.0 * (client % 6), toys.Quirks(**quirks))


def type_of(update: Update) -> str:
    return type_name(update.terms.get("client_type"))


@pytest.fixture(scope="module", params=["gradient", "model"])
def trace(toys, request: pytest.FixtureRequest):
    _, trace = toys.run(
        build_strategy("fedqs", {"aggregation": request.param, "buffer_size": 5}), fleet(toys), versions=80
    )
    return trace


def test_all_types_occur_and_momentum_and_bit_follow_them(trace) -> None:
    assert {type_of(update) for update in trace.received} == {
        "",
        "FBC",
        "FUC",
        "SUC",
        "SBC-1",
        "SBC-2",
    }
    for update in trace.received:
        assert ("feedback" in update.terms) == (type_of(update) in {"FBC", "SBC-2"})
        if type_of(update) in {"", "FBC", "SBC-2"}:
            assert update.momentum == 0.0
        else:
            assert 0.1 <= update.momentum <= 0.5


def test_no_client_is_typed_in_its_first_job_or_before_the_first_step(trace) -> None:
    for update in trace.received:
        if type_of(update):
            assert update.job > 0
            assert update.base_version > 0
            assert update.terms.get("similarity") is not None


def test_the_learning_rate_is_the_clients_own_from_job_to_job(trace) -> None:
    rates = defaultdict(lambda: 0.1)
    for update in trace.received:
        change = update.learning_rate - rates[update.client]
        assert 0.001 <= update.learning_rate <= 0.2
        if type_of(update) in {"", "FBC"}:
            assert change == 0.0
        elif type_of(update) == "FUC":
            assert change < 0 or update.learning_rate == 0.001
        else:
            assert change > 0 or update.learning_rate == 0.2
        rates[update.client] = update.learning_rate


def test_counts_and_weights_add_up_after_every_step(trace) -> None:
    counts: Counter[int] = Counter()
    for t, aggregation in enumerate(trace.aggregations, start=1):
        counts.update(update.client for update in aggregation.updates)
        assert aggregation.version == t
        assert sum(counts.values()) == 5 * t
        assert min(aggregation.weights) >= 0
        assert math.fsum(aggregation.weights) == pytest.approx(1.0)
        if not any(("feedback" in update.terms) for update in aggregation.updates):
            assert aggregation.weights == (0.2,) * 5
    assert any(len(set(aggregation.weights)) > 1 for aggregation in trace.aggregations)


def never(client: int, job: int) -> None:
    return None


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 20),
    size=st.integers(1, 8),
    spread=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    lost=st.booleans(),
)
def test_the_server_counts_k_updates_a_step_and_shares_sum_to_one(
    toys, clients: int, size: int, spread: int, seed: int, lost: bool
) -> None:
    """``sum n(i) = K t``, ``sum f_i = 1`` and fewer than K updates wait, after any event of any fleet."""

    def outage(client: int, job: int) -> tuple[float, float] | None:
        return (0.5, 2.0) if client and derive_seed(seed, "lost", client, job) % 5 == 0 else None

    def check(loop: Loop) -> None:
        ledger, t = loop.strategy.ledger, loop.strategy.model.version
        assert ledger.total == sum(ledger.aggregated.values()) == size * t
        assert loop.strategy.waiting < size
        shares = [ledger.frequency(client) for client in range(clients)]
        assert min(shares) >= 0.0
        assert math.fsum(shares) == pytest.approx(float(t > 0))
        if t:
            active = [share for share in shares if share > 0]
            assert ledger.mean_frequency == pytest.approx(math.fsum(active) / len(active))

    world = toys.Fleet(
        clients,
        lambda client, job: 1.0 + derive_seed(seed, "duration", client, job) % spread,
        toys.Quirks(outage if lost else never),  # the first client always stays, so that no rest is aggregated
    )
    toys.run(build_strategy("fedqs", {"buffer_size": size}), world, events=150, check=check)


def test_fast_clients_are_those_with_more_than_the_mean_share(toys) -> None:
    seen = []

    def check(loop: Loop) -> None:
        ledger = loop.strategy.ledger
        seen.append([ledger.frequency(client) for client in range(15)])
        assert math.fsum(seen[-1]) == pytest.approx(1.0 if ledger.total else 0.0)
        assert loop.strategy.waiting < 5

    toys.run(build_strategy("fedqs", {"buffer_size": 5}), fleet(toys), versions=80, check=check)
    assert seen[-1][0] > 1 / 15 > seen[-1][5]


def made(options: dict) -> Strategy:
    return build_strategy("fedqs", {"buffer_size": 5} | options)


@pytest.fixture(scope="module")
def uncut(toys):
    """Gives a run of 220 events, and its trace; the same for every moment at which another is cut."""
    return functools.cache(lambda *options: toys.run(made(dict(options)), fleet(toys), events=220))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aggregation": "model"},
        {"lg_source": "since_last"},
        {"clock": "tick"},
        THEIRS,
        {"updates": "ref_overwrite", "aggregation": "model", "concurrency": 6},
    ],
    ids=str,
)
@settings(max_examples=8, deadline=None)
@given(moment=st.integers(1, 220))
def test_a_run_cut_after_any_event_goes_on_to_the_same_bits(toys, uncut, options: dict, moment: int) -> None:
    """Model, counters, learning rates, similarities and the order of events."""
    whole, seen = uncut(*options.items())
    first, _ = toys.run(made(options), fleet(toys), events=moment)
    rest = toys.Trace()
    second = Loop(toys.ready(made(options)), fleet(toys), [rest])
    second.load_state_dict(toys.through_json(first.state_dict()))
    second.run(lambda loop: "events" if len(rest.events) >= len(seen.events) - moment else None)
    assert second.strategy.model.vector.equal(whole.strategy.model.vector)
    assert vars(second.strategy.ledger) == vars(whole.strategy.ledger)
    later = seen.received[len(seen.received) - len(rest.received) :]
    assert [u.key for u in rest.received] == [u.key for u in later]
    for one, other in zip(rest.received, later, strict=True):
        assert (one.terms, one.learning_rate, one.momentum) == (other.terms, other.learning_rate, other.momentum)


def test_rubbish_reports_leave_weights_and_means_finite(toys) -> None:
    """Updates with similarities that are no numbers are rejected."""
    strategy = build_strategy("fedqs", {"buffer_size": 5})
    world = fleet(toys, fault=lambda client, job: "similarity" if (client + job) % 4 == 0 else "")
    _, trace = toys.run(strategy, world, versions=60)
    assert {rejection.reason for rejection in trace.rejections} == {"claims similarity = nan, expected 0 to 180"}
    assert math.isfinite(strategy.ledger.mean("similarity"))
    for aggregation in trace.aggregations:
        assert all(math.isfinite(weight) for weight in aggregation.weights)
    assert torch.isfinite(strategy.model.vector).all()


def test_tasks_on_different_clients_are_learned_by_their_owners(toys) -> None:
    """Heads move to the mean aim of their owners, as if the other clients were not there."""
    strategy = build_strategy("fedsgd", {"buffer_size": 15, "clock": "tick"})
    world = toys.Fleet(15, lambda client, job: 1.0, toys.Quirks(tasks=lambda client: (0,) if client < 5 else (1,)))
    toys.run(strategy, world, versions=200)
    alone = build_strategy("fedsgd", {"buffer_size": 5, "clock": "tick"})
    toys.run(alone, toys.Fleet(5, lambda client, job: 1.0), versions=200)
    head = toys.LAYOUT.heads[0]
    torch.testing.assert_close(strategy.model.vector[head], alone.model.vector[head])
    assert not torch.allclose(strategy.model.vector[toys.LAYOUT.heads[1]], alone.model.vector[toys.LAYOUT.heads[1]])
