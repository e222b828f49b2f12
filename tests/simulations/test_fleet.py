"""The simulated fleet: what comes when, and what a saved world is."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.trainer import LocalTrainer
from fedmtl.compression import compressor_of
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import (
    Arrival,
    Balancing,
    Compression,
    Deadline,
    GlobalModel,
    Joined,
    Lost,
    TrainOrder,
    TrainSettings,
)
from fedmtl.state import join, split
from fedmtl.tasks import Task
from simulations.devices.profile import Devices
from simulations.fleet import SimulatedFleet
from simulations.workers.base import Job
from simulations.workers.inline import InlineWorkers

CLIENTS = 6
TASKS = (Task("kind", "classification", 2),)


def make_data() -> FederatedData:
    generator = torch.Generator().manual_seed(0)
    total = 4 * CLIENTS
    train = Examples(torch.randn(total, 3, generator=generator), (torch.arange(total) % 2,))
    shards = Shards(np.split(np.arange(total), CLIENTS))
    nothing = Shards([np.empty(0, dtype=np.int64)] * CLIENTS)
    return FederatedData(TASKS, train, train, shards, nothing, np.ones((CLIENTS, 1), dtype=bool))


DATA = make_data()
MODEL = build_model("linear", {}, DATA.input_shape, TASKS, 0)
LAYOUT = ParameterLayout.of(MODEL)
BASE = GlobalModel(0, LAYOUT.pack(MODEL), LAYOUT)


class Watched(InlineWorkers):
    """Inline workers that note which jobs were trained."""

    def __init__(self) -> None:
        super().__init__(LocalTrainer(build_model("linear", {}, DATA.input_shape, TASKS, 0), DATA))
        self.trained: list[tuple[int, int]] = []

    def result(self, key):  # type: ignore[no-untyped-def]
        self.trained.append(tuple(key))
        return super().result(key)

    def submit(self, jobs: Sequence[Job]) -> None:
        assert jobs
        super().submit(jobs)


def make_fleet(seconds: Sequence[float], **options: float) -> tuple[SimulatedFleet, Watched]:
    workers = Watched()
    devices = Devices(CLIENTS, 0, seconds_per_order=np.array(seconds, dtype=float), **options)
    return SimulatedFleet(DATA, devices, workers, LAYOUT), workers


def order(client: int, job: int = 0) -> TrainOrder:
    train = TrainSettings(epochs=1, batch_size=4)
    return TrainOrder(client, job, BASE, None, train, None, Balancing("equal"), "plain", {}, {}, seed=client)


def test_updates_arrive_in_the_order_of_their_times_and_ties_in_the_order_of_sending() -> None:
    fleet, _ = make_fleet([3, 1, 2, 1, 2, 5])
    fleet.send([order(client) for client in (0, 3, 2, 1, 4)])
    events = [fleet.next_event(None) for _ in range(5)]
    assert [(event.time, event.update.client) for event in events] == [(1, 3), (1, 1), (2, 2), (2, 4), (3, 0)]
    assert fleet.next_event(None) is None


def test_an_update_at_the_very_instant_of_the_deadline_comes_before_it() -> None:
    fleet, _ = make_fleet([2, 3, 4, 4, 4, 4])
    fleet.send([order(0), order(1)])
    assert isinstance(fleet.next_event(2.0), Arrival)
    assert fleet.next_event(2.5) == Deadline(2.5)
    assert fleet.now() == 2.5
    assert isinstance(fleet.next_event(3.0), Arrival)
    assert fleet.next_event(7.0) == Deadline(7.0)


def test_a_deadline_in_the_past_is_served_now_and_time_never_runs_backwards() -> None:
    fleet, _ = make_fleet([2] * CLIENTS)
    fleet.send([order(0)])
    fleet.next_event(None)
    fleet.send([order(1)])
    assert fleet.next_event(1.0) == Deadline(2.0)


def test_an_order_is_trained_when_its_update_is_due_and_not_before() -> None:
    fleet, workers = make_fleet([1, 2, 3, 4, 5, 6])
    fleet.send([order(client) for client in range(CLIENTS)])
    assert workers.trained == []
    fleet.next_event(None)
    fleet.next_event(None)
    assert workers.trained == [(0, 0), (1, 0)]


def test_an_update_says_when_it_was_sent_and_received_and_what_it_cost() -> None:
    fleet, _ = make_fleet([2.5] * CLIENTS)
    fleet.send([order(3)])
    event = fleet.next_event(None)
    assert isinstance(event, Arrival)
    update = event.update
    assert (update.dispatched_at, update.arrived_at, update.duration) == (0, 2.5, 2.5)
    assert update.bytes_up == update.bytes_down == 4 * LAYOUT.size + 4


def test_transfers_take_time_where_bandwidth_is_modelled() -> None:
    fleet, _ = make_fleet([1] * CLIENTS, download_bytes_per_second=100.0, upload_bytes_per_second=50.0)
    fleet.send([order(0)])
    event = fleet.next_event(None)
    size = 4 * LAYOUT.size + 4
    assert event.time == pytest.approx(1 + size / 100 + size / 50)


def test_a_device_that_goes_away_is_lost_before_its_update_and_joins_again() -> None:
    fleet, workers = make_fleet([4] * CLIENTS, dropout=0.999, away_seconds=10.0)
    fleet.send([order(2)])
    lost, joined = fleet.next_event(None), fleet.next_event(None)
    assert isinstance(lost, Lost)
    assert lost.client == 2
    assert 0 < lost.time < 4
    assert isinstance(joined, Joined)
    assert joined.time > lost.time
    assert workers.trained == []
    assert fleet.next_event(None) is None


def test_a_closed_fleet_leaves_no_compressor_behind() -> None:
    """Its random vectors, up to 128 MB, are those of this run; processes take many runs."""
    fleet, _ = make_fleet([1.0] * CLIENTS)
    compression = Compression("shared-randomness", {"coordinates": 4}, 7)
    fleet.send([replace(order(0), compression=compression)])
    used = weakref.ref(compressor_of(compression))
    assert isinstance(fleet.next_event(None), Arrival)
    assert used() is not None
    fleet.close()
    assert used() is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=CLIENTS, max_size=CLIENTS), st.integers(0, 10), st.sampled_from([0.0, 0.4]))
def test_a_world_that_was_saved_and_restored_at_any_event_goes_on_the_same(
    seconds: list[int], cut: int, dropout: float
) -> None:
    def events(restore_at: int | None) -> list[tuple[object, ...]]:
        fleet, _ = make_fleet(seconds, dropout=dropout, away_seconds=3.0)
        fleet.send([order(client) for client in range(CLIENTS)])
        jobs = [1] * CLIENTS
        seen: list[tuple[object, ...]] = []
        for step in range(14):
            if step == restore_at:
                plain, tensors = split(fleet.state_dict())
                fleet, _ = make_fleet(seconds, dropout=dropout, away_seconds=3.0)
                fleet.load_state_dict(join(plain, tensors))
            event = fleet.next_event(None)
            if isinstance(event, Arrival):
                client = event.update.client
                seen.append((event.time, client, event.update.job, tuple(event.update.delta.tolist())))
            else:
                client = event.client
                seen.append((type(event).__name__, event.time, client))
            if not isinstance(event, Lost):
                fleet.send([order(client, jobs[client])])
                jobs[client] += 1
        return seen

    assert events(cut) == events(None)
