"""SAFA's rounds: the quota, whose turn it is, and who lags too far."""

from __future__ import annotations

import pytest

from fedmtl.errors import ConfigError
from fedmtl.protocol import Decision, JobKey
from strategies.schedulers import LagTolerant


class Rounds:
    """A scheduler and the clients it keeps busy."""

    def __init__(self, toys, clients: int, quota: int, **options) -> None:
        self.toys = toys
        self.scheduler = LagTolerant(buffer_size=quota, **options)
        self.scheduler.prepare(toys.start_model(), 0)
        self.version = 0
        self.jobs: dict[int, int] = {}
        self.bases: dict[int, int] = {}
        self.note(self.scheduler.begin(range(clients), 0.0))

    def note(self, decision: Decision) -> Decision:
        self.version += bool(decision.aggregate)
        for assignment in decision.assignments:
            self.jobs[assignment.client] = self.jobs.get(assignment.client, -1) + 1
            self.bases[assignment.client] = self.version
        return decision

    def deliver(self, client: int, now: float = 1.0) -> Decision:
        update = self.toys.make_update(client, self.jobs[client], self.bases[client])
        return self.note(self.scheduler.on_update(update, now))


def clients_of(decision: Decision, *, late: bool) -> list[int]:
    return [key.client for key in decision.aggregate if (key in decision.late) is late]


def test_a_round_ends_with_the_quota_and_only_free_clients_are_sent_the_model(toys) -> None:
    rounds = Rounds(toys, 5, 2)
    assert rounds.deliver(3) == Decision()
    decision = rounds.deliver(1)
    assert decision.aggregate == (JobKey(3, 0), JobKey(1, 0))
    assert decision.trigger == "full"
    assert sorted(assignment.client for assignment in decision.assignments) == [1, 3]


def test_who_was_picked_last_waits_for_others_and_is_undrafted_if_the_quota_is_met(toys) -> None:
    rounds = Rounds(toys, 5, 2)
    rounds.deliver(0)
    rounds.deliver(1)
    assert rounds.deliver(0) == Decision()
    assert rounds.deliver(4) == Decision()
    decision = rounds.deliver(2)
    assert clients_of(decision, late=False) == [4, 2]
    assert clients_of(decision, late=True) == [0]


def test_the_fastest_of_the_last_picked_fill_a_quota_that_the_others_cannot(toys) -> None:
    rounds = Rounds(toys, 3, 2)
    rounds.deliver(0)
    rounds.deliver(1)
    rounds.deliver(1)
    rounds.deliver(0)
    decision = rounds.deliver(2)
    assert clients_of(decision, late=False) == [2, 1]
    assert clients_of(decision, late=True) == [0]
    assert decision.trigger == "all"


def test_a_laggard_is_deprecated_and_its_update_rejected(toys) -> None:
    rounds = Rounds(toys, 3, 1, lag=1)
    deprecated = []
    for turn in range(4):
        rounds.deliver(turn % 2)
        deprecated.append(rounds.scheduler.deprecated)
    # Client 2 has version 0. When round 2 starts it is two behind: its cache is reset when that round is aggregated.
    assert deprecated == [(), (), (2,), ()]
    decision = rounds.deliver(2)
    assert [key for key, _ in decision.rejected] == [JobKey(2, 0)]
    assert decision.rejected[0][1] == "deprecated: 4 versions behind, at most 1 allowed"
    assert decision.aggregate == ()


@pytest.mark.parametrize(
    ("deprecation", "reason"),
    [("by_version", ""), ("by_not_picked", "deprecated: not picked for too many rounds, at most 2 allowed")],
)
def test_who_was_undrafted_is_given_up_earlier_where_being_picked_counts(toys, deprecation, reason: str) -> None:
    """Client 0, picked for version 1 and then undrafted, trains on version 2: when version 4 comes it is 2 behind."""
    rounds = Rounds(toys, 6, 2, lag=2, deprecated=deprecation)
    for client in (0, 1, 0, 2, 3, 4, 5, 2, 3):
        decision = rounds.deliver(client)
    assert rounds.version == 4
    assert decision.rejected == ()
    assert [why for _, why in rounds.deliver(0).rejected] == ([reason] if reason else [])
    assert [why for _, why in rounds.deliver(1).rejected]  # version 1, and not picked since


def test_a_rejected_laggard_is_sent_the_model_when_the_next_round_starts(toys) -> None:
    """Clients 1 and 2 are deprecated at once; when 0 delivers again nothing else can arrive: it fills the quota."""
    rounds = Rounds(toys, 3, 1, lag=0)
    rounds.deliver(0)
    assert rounds.deliver(2).assignments == ()
    decision = rounds.deliver(0)
    assert decision.aggregate == (JobKey(0, 1),)
    assert sorted(assignment.client for assignment in decision.assignments) == [0, 2]


def test_a_round_without_updates_takes_no_step(toys) -> None:
    rounds = Rounds(toys, 2, 2, round_limit=5.0)
    assert rounds.scheduler.next_deadline() == 5.0
    decision = rounds.note(rounds.scheduler.on_deadline(5.0))
    assert decision == Decision()
    assert rounds.scheduler.next_deadline() == 10.0
    rounds.deliver(0, 6.0)
    decision = rounds.note(rounds.scheduler.on_deadline(10.0))
    assert decision.aggregate == (JobKey(0, 0),)
    assert decision.trigger == "deadline"


def test_a_quota_of_nobody_is_refused() -> None:
    with pytest.raises(ConfigError, match="buffer_size = 0"):
        LagTolerant(buffer_size=0)
