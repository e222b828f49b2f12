"""The fleet of a few lines, by which strategies are tried out."""

from fedmtl.protocol import Arrival, Deadline, GlobalModel
from fedmtl.toy import toy_model
from strategies.aggregators import GradientAggregator
from strategies.core.fleet import ToyFleet
from strategies.core.strategy import Strategy
from strategies.schedulers import Asynchronous
from strategies.weightings import Uniform

MODEL: GlobalModel = toy_model([8.0, -8.0])


def busy_fleet() -> ToyFleet:
    """Clients 3 and 5, which were given their first orders at time 0."""
    fleet = ToyFleet({3: 2.0, 5: 1.0}, train=lambda order: -0.5 * order.base.vector)
    strategy = Strategy(Asynchronous(), GradientAggregator(Uniform()))
    strategy.initialise(MODEL)
    fleet.send(strategy.orders(strategy.begin(fleet.clients(), fleet.now()).decision.assignments))
    return fleet


def test_clients_answer_in_their_own_time_what_they_were_asked() -> None:
    fleet = busy_fleet()
    events = [fleet.next_event(None) for _ in range(2)]
    assert all(isinstance(event, Arrival) for event in events)
    assert [(event.time, event.update.key, event.update.duration) for event in events] == [
        (1.0, (5, 0), 1.0),
        (2.0, (3, 0), 2.0),
    ]
    assert events[0].update.delta.tolist() == [-4.0, 4.0]
    assert (fleet.now(), fleet.next_event(None)) == (2.0, None)


def test_a_deadline_comes_after_what_arrives_at_its_instant() -> None:
    fleet = busy_fleet()
    assert fleet.next_event(0.5) == Deadline(0.5)
    assert isinstance(fleet.next_event(1.0), Arrival)
    assert fleet.next_event(1.5) == Deadline(1.5)
    assert fleet.now() == 1.5
