from __future__ import annotations

import pytest

from fedmtl.errors import UserError
from strategies.aggregators import GradientAggregator
from strategies.core.loop import Loop, Observer
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy
from strategies.schedulers import Buffered
from strategies.weightings import Uniform


def make_strategy(size: int = 3) -> Strategy:
    return Strategy(Buffered(buffer_size=size), GradientAggregator(Uniform()))


class Diary(Observer):
    def __init__(self) -> None:
        self.entries: list[str] = []

    def on_start(self, loop: Loop) -> None:
        self.entries.append("start")

    def on_rejection(self, loop: Loop, rejection) -> None:
        self.entries.append("rejection")

    def on_aggregation(self, loop: Loop, aggregation) -> None:
        assert loop.strategy.model.version == aggregation.version
        self.entries.append("aggregation")

    def after_event(self, loop: Loop, event) -> None:
        self.entries.append(type(event).__name__)

    def on_end(self, loop: Loop) -> None:
        self.entries.append(f"end: {loop.ended}")


def test_observers_see_every_moment_in_order(toys) -> None:
    quirks = toys.Quirks(fault=lambda client, job: "nan" if client == 1 else "")
    fleet = toys.Fleet(2, lambda client, job: 2.0 + client, quirks)
    loop = Loop(toys.ready(make_strategy(2)), fleet, [diary := Diary()])
    loop.run(lambda loop: "enough" if loop.strategy.model.version else None)
    assert diary.entries == ["start", "Arrival", "rejection", "Arrival", "aggregation", "Arrival", "end: enough"]
    assert loop.arrivals == diary.entries.count("Arrival")
    assert loop.rejected == diary.entries.count("rejection")


def test_a_run_ends_when_nobody_will_ever_answer_again(toys) -> None:
    fleet = toys.Fleet(3, lambda client, job: 1.0, toys.Quirks(outage=lambda client, job: (0.5, None) if job else None))
    loop, trace = toys.run(make_strategy(2), fleet)
    assert loop.ended == "no client will ever answer again"
    assert [aggregation.trigger for aggregation in trace.aggregations] == ["full", "rest"]


def test_a_run_in_which_everything_is_rejected_ends_with_an_error(toys) -> None:
    fleet = toys.Fleet(3, lambda client, job: 1.0, toys.Quirks(fault=lambda client, job: "failure"))
    with pytest.raises(UserError, match=r"1000 updates were of no use .* the loss is nan.*learning_rate"):
        toys.run(make_strategy(), fleet)


@pytest.mark.parametrize(
    ("name", "options"),
    [("fedavg", {"clients_per_round": 600, "over_commit": 3.0}), ("fedbuff", {"max_staleness": 0})],
)
def test_updates_that_the_scheduler_has_no_room_for_do_not_end_a_run(toys, name: str, options: dict) -> None:
    fleet = toys.Fleet(1900, lambda client, job: 1.0 + client / 1000)
    _, trace = toys.run(build_strategy(name, options), fleet, versions=3)
    assert len(trace.aggregations) == 3
    assert len(trace.rejections) > 1000


def test_an_interrupted_run_is_not_over_and_goes_on_from_its_state(toys) -> None:
    def fleet():
        return toys.Fleet(4, lambda client, job: 1.0 + client)

    def nine(loop: Loop) -> str | None:
        return "nine" if loop.strategy.model.version >= 9 else None

    whole = Loop(toys.ready(make_strategy()), fleet())
    whole.run(nine)

    class Interrupter(Diary):
        def after_event(self, loop: Loop, event) -> None:
            super().after_event(loop, event)
            if len(self.entries) > 12:
                loop.interrupt()

    cut = Loop(toys.ready(make_strategy()), fleet(), [diary := Interrupter()])
    cut.run(nine)
    assert cut.interrupted
    assert cut.ended == ""
    assert not diary.entries[-1].startswith("end")

    resumed = Loop(toys.ready(make_strategy()), fleet())
    resumed.load_state_dict(toys.through_json(cut.state_dict()))
    assert resumed.begun
    resumed.run(nine)
    assert resumed.strategy.model.vector.equal(whole.strategy.model.vector)
    assert (resumed.arrivals, resumed.ended) == (whole.arrivals, "nine")


def test_one_client_that_fails_at_once_again_and_again_does_not_end_a_run(toys) -> None:
    quirks = toys.Quirks(fault=lambda client, job: "nan" if client == 0 else "")
    fleet = toys.Fleet(4, lambda client, job: 0.009 if client == 0 else 10.0, quirks)
    loop, trace = toys.run(build_strategy("fedbuff", {"buffer_size": 3}), fleet, versions=1)
    assert loop.ended == "versions"
    assert len(trace.rejections) > 1000
