from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from strategies.schedulers.roster import Roster

moves = st.lists(st.tuples(st.sampled_from(["free", "remove", "fill"]), st.integers(0, 7)), max_size=30)


@given(limit=st.one_of(st.none(), st.integers(1, 5)), moves=moves)
def test_a_roster_is_two_sets_and_a_limit(limit: int | None, moves: list[tuple[str, int]]) -> None:
    roster, busy, idle = Roster(limit), set(), set(range(6))
    roster.free(idle)
    for move, client in moves:
        if move == "free":
            roster.free((client,))
            busy.discard(client)
            idle.add(client)
        elif move == "remove":
            roster.remove(client)
            busy.discard(client)
            idle.discard(client)
        else:
            chosen = [assignment.client for assignment in roster.fill()]
            room = len(idle) if limit is None else min(len(idle), limit - len(busy))
            assert len(set(chosen)) == len(chosen) == room
            assert set(chosen) <= idle
            busy |= set(chosen)
            idle -= set(chosen)
        state = roster.state_dict()
        assert (set(state["busy"]), sorted(state["idle"])) == (busy, sorted(idle))
        assert roster.empty == (not busy and not idle)


def test_without_a_limit_the_idle_are_next_in_the_order_in_which_they_became_idle() -> None:
    roster = Roster(None)
    roster.free([5, 2, 9])
    assert [assignment.client for assignment in roster.fill()] == [5, 2, 9]
    roster.free([9])
    roster.free([5])
    assert [assignment.client for assignment in roster.fill()] == [9, 5]


def test_every_idle_client_is_drawn_about_as_often() -> None:
    roster, counts = Roster(1), dict.fromkeys(range(4), 0)
    roster.free(range(4))
    for _ in range(2000):
        (assignment,) = roster.fill()
        counts[assignment.client] += 1
        roster.free((assignment.client,))
    # 500 each with a standard deviation of 19.
    assert all(400 < count < 600 for count in counts.values())
