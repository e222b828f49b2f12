"""The queue of the code of FedQS's authors: overwritten updates and global arrays, against a sweep over ticks."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from typing import NamedTuple

import pytest
import torch

from fedmtl.errors import ConfigError
from fedmtl.similarity import LARGEST
from simulations.presets import preset_tables
from strategies.aggregators import GradientAggregator, ModelAggregator, NewestMeta, Overwritten
from strategies.core.kinds import Aggregator, Step
from strategies.core.ledger import Ledger
from strategies.core.strategy import Strategy
from strategies.flower.fleet import GridFleet
from strategies.recipes.catalogue import build_strategy
from strategies.schedulers import Buffered
from strategies.weightings import DataSize, Uniform

_PRESET = preset_tables("fedqs-reference")["strategy"]
THEIRS = {key: value for key, value in _PRESET.items() if key not in ("name", "buffer_size", "aggregation")}
"""Every fault of the authors' code, at the size and in the mode of a test."""

HISTOGRAM = """
1x4 2x2 3x5 4x4 5x2 6x2 7x3 8x2 10x7 11x2 12x1 13x2 14x1 15x3 16x1 17x2 18x1 20x1 21x1 22x1 23x2 24x2 25x1 26x5 27x4
28x3 29x2 30x2 31x2 32x1 33x2 35x1 36x2 37x1 38x2 39x1 40x2 41x1 42x2 43x1 44x2 45x1 46x2 47x2 48x2 49x2 50x3
"""
SPEEDS = [int(r) for entry in HISTOGRAM.split() for r, count in [entry.split("x")] for _ in range(int(count))]


class Entry(NamedTuple):
    """An update of a server step: what waited, what was read in its place, and whether a feedback bit could be set."""

    client: int
    job: int
    version: int
    read_job: int
    read_version: int
    bit: bool


def swept(speeds: list[int], versions: int, size: int, *, drain: bool) -> list[list[Entry]]:
    """The server steps by the sweep that the specification describes, client by client and tick by tick.

    A client can have set its bit if it began its newest job since the last step, and was known then.
    """
    clients = range(len(speeds))
    counter, job, begun = [0] * len(speeds), [-1] * len(speeds), [0] * len(speeds)
    known, total = [False] * len(speeds), [0] * len(speeds)
    buffer: list[tuple[int, int, int]] = []
    steps: list[list[Entry]] = []
    while len(steps) < versions:
        for i in clients:
            if counter[i] == 0:
                job[i], begun[i], known[i], counter[i] = job[i] + 1, len(steps), total[i] > 0, 1
            elif counter[i] == speeds[i]:
                buffer.append((i, job[i], begun[i]))
                counter[i] = 0
            else:
                counter[i] += 1
        while len(buffer) >= size and len(steps) < versions:
            taken, buffer = buffer[:size], buffer[size:]
            steps.append([Entry(i, j, v, job[i], begun[i], known[i] and begun[i] == len(steps)) for i, j, v in taken])
            for i, _, _ in taken:
                total[i] += 1
            if not drain:
                break
    return steps


class Spy(Aggregator):
    """Notes which job each content is of, and adds the updates."""

    def __init__(self) -> None:
        self.base = GradientAggregator(Uniform())
        self.jobs: dict[int, tuple[int, bool]] = {}
        self.newest: dict[int, tuple[int, bool]] = {}
        self.kept: list[torch.Tensor] = []  # so that no two contents have one address
        self.steps: list[list[Entry]] = []

    def on_outcome_known(self, update, ledger: Ledger) -> None:
        self.jobs[id(update.delta)] = (update.job, False)
        self.newest[update.client] = (update.base_version, update.client in ledger.aggregated)
        self.kept.append(update.delta)

    def aggregate(self, step: Step):
        self.steps.append(
            [
                Entry(
                    update.client,
                    update.job,
                    -1,  # what waited is not shown to it
                    self.jobs[id(update.delta)][0],
                    update.base_version,
                    self.newest[update.client][1] and self.newest[update.client][0] == step.model.version,
                )
                for update in step.updates
            ]
        )
        return self.base.aggregate(step)


def played(toys, speeds: list[int], versions: int, size: int, *, drain: bool) -> list[list[Entry]]:
    """The server steps of the strategy; an order given at the end of one tick is answered r + 1 ticks later."""
    spy = Spy()
    scheduler = Buffered(
        buffer_size=size, buffer="drain" if drain else "one_per_tick", clock="tick", tick_order="client"
    )
    fleet = toys.Fleet(len(speeds), lambda client, job: speeds[client] + 1)
    _, trace = toys.run(Strategy(scheduler, Overwritten(spy)), fleet, versions=versions)
    assert len(spy.steps) == len(trace.aggregations)
    return [
        [entry._replace(version=update.base_version) for entry, update in zip(entries, step.updates, strict=True)]
        for entries, step in zip(spy.steps, trace.aggregations, strict=True)
    ]


def in_order(order: str) -> list[int]:
    if order.startswith("shuffled"):
        speeds = list(SPEEDS)
        random.Random(order).shuffle(speeds)
        return speeds
    return sorted(SPEEDS, reverse=order == "descending")


@pytest.mark.parametrize("drain", [False, True], ids=["one per tick", "drain"])
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_every_step_reads_what_the_sweep_reads(toys, order: str, drain: bool) -> None:
    """To the last entry: client, job, version, the job and the version of what is read, and whether a bit can be."""
    speeds = in_order(order)
    assert played(toys, speeds, 200, 10, drain=drain) == swept(speeds, 200, 10, drain=drain)


def share(entries: list[Entry], what) -> float:
    return sum(map(what, entries)) / len(entries)


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled 1", "shuffled 2", "shuffled 3", "shuffled 4"])
def test_the_published_setting_reads_mostly_what_never_waited(order: str) -> None:
    """Golden figures of N = 100, K = 10, 1:50, 400 steps, at most one per tick: section 10, defects 1 and 2.

    76.7 % and 9.79 depend on the speeds alone. The rest depends on the clients' order, too, which the specification
    does not give; it gives 2.50, half, 12.6 % and 48.7 % for the authors' order. Over 40 random orders the staleness
    lies in 1.83 to 2.74 and the shares within 2 points of these; orders that sort clients by speed are the extremes.
    """
    steps = swept(in_order(order), 400, 10, drain=False)
    entries = [entry for step in steps for entry in step]
    assert share(entries, lambda e: e.read_job != e.job) == pytest.approx(0.767, abs=0.0005)
    nominal = [t - e.version for t, step in enumerate(steps) for e in step]
    assert statistics.mean(nominal) == pytest.approx(9.788, abs=0.0005)
    content = [t - e.read_version for t, step in enumerate(steps) for e in step]
    assert statistics.mean(tau == 0 for tau in content) == pytest.approx(0.504, abs=0.02)
    times = Counter((e.client, e.read_job) for e in entries)
    again = sum(count - 1 for count in times.values()) / len(entries)
    assert share(entries, lambda e: e.bit) == pytest.approx(0.487, abs=0.02)
    if order.startswith("shuffled"):
        assert 1.8 < statistics.mean(content) < 2.8  # 2.50
        assert again == pytest.approx(0.126, abs=0.02)
    else:
        assert 0.9 < statistics.mean(content) < 4.2  # the extremes: the fastest are asked first, or last
        assert 0.12 < again < 0.16


def test_overwritten_updates_are_read_from_where_their_content_started(toys) -> None:
    """Model aggregation averages the models ``base + delta`` of the contents."""
    base = ModelAggregator(DataSize())
    overwritten = Overwritten(base)
    model = toys.start_model(5)
    old, newer = torch.full_like(model.vector, 2.0), torch.full_like(model.vector, 3.0)
    waited, content, own = (
        toys.make_update(0, 4, version=1),
        toys.make_update(0, 5, version=3),
        toys.make_update(1, 2, version=1),
    )
    for known in (waited, own, content):
        overwritten.on_outcome_known(known, Ledger())
    step = Step(model, [waited, own], {1: old, 3: newer}, "full", frozenset(), Ledger())
    vector, weights = overwritten.aggregate(step)
    expected = weights[0] * (newer + content.delta) + weights[1] * (old + own.delta)
    torch.testing.assert_close(vector, expected)


@pytest.mark.parametrize("spoilt", ["failure", "nan"])
def test_what_is_not_finite_is_not_written(toys, spoilt: str) -> None:
    overwritten = Overwritten(GradientAggregator(Uniform()))
    waited, next_one = toys.make_update(0, 0), toys.make_update(0, 1)
    if spoilt == "nan":
        next_one.delta[0] = float("nan")
    else:
        next_one.failure = "the loss is nan"
    for known in (waited, next_one):
        overwritten.on_outcome_known(known, Ledger())
    model = toys.start_model()
    vector, _ = overwritten.aggregate(Step(model, [waited], {}, "full", frozenset(), Ledger()))
    torch.testing.assert_close(vector, model.vector + waited.delta)


FOLLOWS = {"similarity": LARGEST}


class Shown(Uniform):
    """Notes the updates that it is shown."""

    def weights(self, updates, version, ledger):
        self.seen = [("feedback" in update.terms, update.terms.get("similarity")) for update in updates]
        return super().weights(updates, version, ledger)


def test_bits_and_similarities_are_those_of_the_newest_job(toys) -> None:
    """A bit counts only while no step was taken since the job began; a similarity counts, and enters the mean."""
    shown, ledger = Shown(), Ledger(FOLLOWS)
    arrays = NewestMeta(GradientAggregator(shown))
    waits = toys.make_update(0, 3, version=6, terms=toys.fedqs_terms(feedback=True, similarity=50.0))
    began = toys.make_update(0, 4, version=7, terms=toys.fedqs_terms(similarity=90.0))
    other = toys.make_update(1, 2, version=7, terms=toys.fedqs_terms(feedback=True, similarity=30.0))
    for known in (waits, began, other):
        arrays.on_outcome_known(known, ledger)
    assert ledger.mean("similarity") == pytest.approx((90.0 + 30.0) / 2)
    for version, bit in ((7, True), (8, False)):
        arrays.aggregate(Step(toys.start_model(version), [waits, other], {}, "full", frozenset(), ledger))
        assert shown.seen == [(False, 90.0), (bit, 30.0)]


def test_being_told_a_second_time_changes_nothing(toys) -> None:
    ledger, arrays = Ledger(FOLLOWS), NewestMeta(GradientAggregator(Uniform()))
    known = toys.make_update(0, 3, terms={"similarity": float("nan")})
    arrays.on_outcome_known(known, ledger)
    arrays.on_outcome_known(known, ledger)
    assert ledger.reports("similarity").left_out == 1


@pytest.mark.parametrize("options", [{"updates": "ref_overwrite"}, {"carry_meta": "global_arrays"}, THEIRS])
def test_real_clients_cannot_be_foreseen(options: dict) -> None:
    assert build_strategy("fedqs", options).only_simulated
    with pytest.raises(ConfigError, match="GridFleet cannot show updates before they arrive"):
        GridFleet.train_at_once(object.__new__(GridFleet), print)


def test_without_these_options_nobody_asks_to_foresee() -> None:
    assert not build_strategy("fedqs", {}).only_simulated
    from strategies.core.outcomes import outcome_listener

    assert outcome_listener(build_strategy("fedqs", {})) is None
    assert outcome_listener(build_strategy("fedqs", {"updates": "ref_overwrite"})) is not None


def test_compressed_updates_cannot_be_overwritten() -> None:
    from fedmtl.compression import build_compressor

    strategy = build_strategy("fedqs", {"updates": "ref_overwrite"})
    with pytest.raises(ConfigError, match=r"Overwritten .* needs 'exact-updates'"):
        strategy.compress(build_compressor("shared-randomness", {}))


def test_an_order_within_a_tick_needs_ticks() -> None:
    with pytest.raises(ConfigError, match="set clock = 'tick'"):
        build_strategy("fedqs", {"tick_order": "client"})


def test_a_tick_is_buffered_by_the_clients_numbers(toys) -> None:
    for scheduler, expected in (
        (Buffered(buffer_size=3, clock="tick"), [2, 0, 1]),
        (Buffered(buffer_size=3, clock="tick", tick_order="client"), [0, 1, 2]),
    ):
        scheduler.prepare(toys.start_model(), 0)
        scheduler.begin(range(4), 0.0)
        scheduler.on_update(toys.make_update(3), 1.0)
        for client in (2, 0, 1):
            scheduler.on_update(toys.make_update(client), 2.0)
        assert [key.client for key in scheduler._buffer] == [3, *expected]
