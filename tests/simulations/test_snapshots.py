"""What was uploaded is what is aggregated, however often its client has trained since."""

from __future__ import annotations

import pytest
import torch

from fedmtl.protocol import Aggregation, Arrival, Event, JobKey, Update
from simulations import Experiment
from simulations.runner import simulated_fleet
from strategies.core.loop import Loop, Observer

SMALL = ["data.clients=9", "devices.ratio=8", "model.name=linear", "balancing.name=equal", "training.batch_size=10"]


def said(update: Update) -> tuple[object, ...]:
    return update.terms, update.learning_rate, update.base_version


class Compared(Observer):
    """Compares each update that is aggregated with a copy made on arrival, and counts those that were overtaken."""

    def __init__(self) -> None:
        self.uploads: dict[JobKey, tuple[torch.Tensor, tuple[object, ...]]] = {}
        self.latest: dict[int, int] = {}
        self.overtaken = 0

    def note(self, event: Event | None) -> Event | None:
        if isinstance(event, Arrival):
            update = event.update
            self.uploads[update.key] = (update.delta.clone(), said(update))
            self.latest[update.client] = update.job
        return event

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        for update in aggregation.updates:
            delta, words = self.uploads.pop(update.key)
            assert torch.equal(update.delta, delta)
            assert said(update) == words
            self.overtaken += self.latest[update.client] > update.job


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["gradient", "model"])
@pytest.mark.parametrize("lg_source", ["previous", "since_last"])
def test_a_client_that_trains_on_cannot_alter_what_waits(aggregation: str, lg_source: str) -> None:
    """Fast clients deliver again and again into a large buffer, whose clients keep their last update as well."""
    fedqs = [f"strategy.aggregation={aggregation}", f"strategy.lg_source={lg_source}", "strategy.buffer_size=12"]
    experiment = Experiment.load(None, [*SMALL, *fedqs])
    fleet, watch = simulated_fleet(experiment), Compared()
    serve = fleet.next_event
    fleet.next_event = lambda until: watch.note(serve(until))  # type: ignore[method-assign]
    Loop(experiment.new_strategy(), fleet, [watch]).run(
        lambda loop: "done" if loop.strategy.model.version >= 8 else None
    )
    assert watch.overtaken > 10


def test_the_trainers_own_tensors_are_not_what_it_hands_out() -> None:
    """Writing over everything that a trainer works in changes no update that it made."""
    experiment = Experiment.load(None, SMALL)
    fleet, strategy = simulated_fleet(experiment), experiment.new_strategy()
    fleet.send(strategy.orders(strategy.begin(fleet.clients(), 0.0).decision.assignments))
    event = fleet.next_event(None)
    assert isinstance(event, Arrival)
    before = event.update.delta.clone()
    trainer = fleet._workers._trainer  # type: ignore[attr-defined]
    with torch.no_grad():
        for parameter in trainer._model.parameters():
            parameter.fill_(100.0)
    trainer._vector.fill_(-100.0)
    assert torch.equal(event.update.delta, before)


def test_in_this_process_nothing_is_copied_on_the_way_to_a_worker_and_back() -> None:
    """The simulator's own path does not serialise: an order holds the very vector of the model."""
    experiment = Experiment.load(None, SMALL)
    fleet, strategy = simulated_fleet(experiment), experiment.new_strategy()
    workers = fleet._workers
    submitted, results, submit, result = [], [], workers.submit, workers.result
    workers.submit = lambda jobs: (submitted.extend(jobs), submit(jobs))  # type: ignore[method-assign]
    workers.result = lambda key: results.append(result(key)) or results[-1]  # type: ignore[method-assign]
    fleet.send(strategy.orders(strategy.begin(fleet.clients(), 0.0).decision.assignments))
    assert len(submitted) == 9
    assert all(job.order.base.vector is strategy.model.vector for job in submitted)
    event = fleet.next_event(None)
    assert isinstance(event, Arrival)
    assert event.update is results[0]
