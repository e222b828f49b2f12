"""What a part has of itself, and what a strategy does for all that are held, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from fedmtl.protocol import GlobalModel, Update
from strategies.aggregators import BatchNormStatistics, GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Weighting
from strategies.core.ledger import Ledger
from strategies.core.part import Part, every_part, parts_within, prepare, restore, states_of
from strategies.core.strategy import Strategy
from strategies.schedulers import Buffered
from strategies.weightings import Discounted, Uniform


class Counting(Weighting):
    """Equal weights that sum to 1 over the calls so far: its state is how often it was asked."""

    def __init__(self) -> None:
        self.prepared = 0
        self.calls = 0

    def prepare(self, model: GlobalModel, seed: int) -> None:
        self.prepared += 1

    def weights(self, updates: Sequence[Update], version: int, ledger: Ledger) -> tuple[float, ...]:
        self.calls += 1
        return (1.0 / (self.calls * len(updates)),) * len(updates)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = int(state["calls"])


class Shelf(Part):
    """Holds whatever it is given, as it is given."""

    def __init__(self, *content: Any, **named: Any) -> None:
        self.content = content
        self.named = named


class Hiding(Shelf):
    """Sees to its parts itself."""

    def held_parts(self) -> Iterator[tuple[str, Part]]:
        return iter(())


def test_parts_are_found_through_lists_tuples_and_dictionaries_at_any_depth() -> None:
    leaf, other, last = Counting(), Counting(), Counting()
    root = Shelf([leaf, {"inside": (other,)}], "no part", 7, deeper=Shelf(last))
    assert every_part({"root": root}) == {
        "root": root,
        "root.content.0.0": leaf,
        "root.content.0.1.inside.0": other,
        "root.named.deeper": root.named["deeper"],
        "root.named.deeper.content.0": last,
    }


def test_a_part_that_is_held_twice_is_prepared_and_saved_once(toys) -> None:
    shared = Counting()
    roots = {"first": Shelf(shared), "second": Shelf([shared])}
    prepare(roots.values(), toys.start_model(), 0)
    assert shared.prepared == 1
    assert states_of(roots) == {"first.content.0": {"calls": 0}}


def test_what_a_part_holds_is_prepared_before_it(toys) -> None:
    order: list[str] = []

    class Noting(Shelf):
        def prepare(self, model: GlobalModel, seed: int) -> None:
            order.append(self.named["name"])

    inner = Noting(name="inner")
    prepare([Noting(Noting(inner, name="middle"), name="outer"), inner], toys.start_model(), 0)
    assert order == ["inner", "middle", "outer"]


def test_a_part_that_sees_to_its_parts_itself_hides_them(toys) -> None:
    hidden = Counting()
    root = Hiding(hidden)
    prepare([root], toys.start_model(), 0)
    assert list(parts_within(root)) == [root]
    assert hidden.prepared == 0


def test_parts_that_hold_each_other_are_met_once() -> None:
    one, two = Shelf(), Shelf()
    one.named["other"], two.named["other"] = two, one
    assert list(parts_within(one)) == [one, two]


def test_a_weighting_with_a_state_keeps_it_wherever_it_is_held(toys) -> None:
    def aggregator(weighting: Weighting) -> Optimized:
        discounted = Discounted(weighting, a=0.5)
        return Optimized(BatchNormStatistics(GradientAggregator(discounted), rule="average"), SGD(momentum=0.9))

    def strategy(weighting: Weighting) -> Strategy:
        return Strategy(Buffered(buffer_size=2), aggregator(weighting))

    counting = Counting()
    saved = strategy(counting)
    toys.run(saved, toys.Fleet(4, lambda client, job: 1.0 + client), versions=3)
    assert counting.prepared == 1
    assert counting.calls > 0
    resumed = Counting()
    toys.ready(strategy(resumed)).load_state_dict(toys.through_json(saved.state_dict()))
    assert resumed.calls == counting.calls


def test_a_state_of_a_part_that_is_not_there_is_refused() -> None:
    saved = states_of({"aggregator": GradientAggregator(Counting())})
    with pytest.raises(ValueError, match=r"no part for the state of 'aggregator\.weighting'|keeps no state"):
        restore({"aggregator": GradientAggregator(Uniform())}, saved)
    with pytest.raises(ValueError, match=r"no part for the state of 'aggregator\.weighting'"):
        restore({"policy": Counting()}, saved)


def test_a_part_with_a_state_that_was_saved_without_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no state for the part 'aggregator\.weighting' \(Counting\)"):
        restore({"aggregator": GradientAggregator(Counting())}, {})


def test_two_parts_at_one_place_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two parts are held at the place 'root\.content\.0\.1'"):
        every_part({"root": Shelf({1: Counting(), "1": Counting()})})


def test_a_part_that_exchanges_its_parts_when_it_is_restored_must_hide_them() -> None:
    class Exchanging(Shelf):
        def state_dict(self) -> dict[str, Any]:
            return {"anything": 1}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.content = (Counting(),)

    saved = states_of({"root": Exchanging(Counting())})
    with pytest.raises(ValueError, match="must hide them"):
        restore({"root": Exchanging(Counting())}, saved)


class Keeping(Counting):
    """Keeps whatever it is given as its state."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({3: 1}, r"the state of aggregator\.weighting: kept has the key 3: keys are texts"),
        ({1, 2}, r"the state of aggregator\.weighting: kept is set: take numbers"),
    ],
)
def test_a_state_that_a_checkpoint_would_change_is_refused_with_its_place(kept: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        states_of({"aggregator": GradientAggregator(Keeping(kept))})


def test_a_part_that_saves_a_state_and_cannot_restore_it_is_refused_at_once(toys) -> None:
    class OnlySaves(Part):
        def state_dict(self) -> dict[str, Any]:
            return {"anything": 1}

    with pytest.raises(TypeError, match="OnlySaves has only one of state_dict and load_state_dict"):
        prepare([OnlySaves()], toys.start_model(), 0)
