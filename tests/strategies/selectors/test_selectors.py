"""What every selector holds to, and what Oort's and HeteRo-Select's formulas say.

Long because both methods' formulas are followed by hand.
"""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.protocol import TrainSettings
from fedmtl.state import split
from strategies.core.ledger import Ledger
from strategies.recipes.catalogue import build_strategy
from strategies.selectors import HeteroSelect, OortSelector
from strategies.selectors.base import Selector, normalised, percentile, ranking, sample
from strategies.selectors.hetero_select import FairBy
from strategies.selectors.paced import PacedSelector
from strategies.weightings.score import ScoreWeights

SELECTORS = {
    "Oort": OortSelector,
    "Oort, blacklist": lambda: OortSelector(blacklist_rounds=1, pacer_rounds=2),
    "Oort, exploiting": lambda: OortSelector(exploration=0.0, exploration_min=0.0),
    "HeteRo-Select": HeteroSelect,
    "curriculum": lambda: PacedSelector(versions=20),
}
every_selector = pytest.mark.parametrize("name", SELECTORS)


def ready(toys, name: str, clients: int) -> Selector:
    selector = SELECTORS[name]()
    selector.prepare(toys.start_model(), 7)
    selector.free(range(clients))
    return selector


def report(toys, client: int, loss: float, seconds: float, examples: int = 10, **fields):
    return toys.make_update(client, examples=examples, task_losses=(loss,), arrived_at=seconds, **fields)


@every_selector
@settings(max_examples=40, deadline=None)
@given(
    clients=st.integers(1, 30),
    count=st.integers(1, 35),
    losses=st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.0, 1e6]), min_size=30, max_size=30),
    seconds=st.lists(st.sampled_from([0.0, 1.0, 1.0, 500.0]), min_size=30, max_size=30),
    busy=st.sets(st.integers(0, 29)),
)
def test_it_chooses_so_many_different_idle_clients(toys, name, clients, count, losses, seconds, busy) -> None:
    """Equal and zero losses, zero durations and rounds of everybody among them."""
    selector = ready(toys, name, clients)
    for _ in range(6):
        idle = set(range(clients)) - busy
        for client in busy & set(range(clients)):
            selector.leave(client)
        chosen = selector.choose(count)
        assert len(chosen) == len(set(chosen)) == min(count, len(idle))
        assert set(chosen) <= idle
        for client in chosen:
            selector.leave(client)
            selector.heard(report(toys, client, losses[client], seconds[client]))
        selector.free(range(clients))


@every_selector
def test_a_state_goes_on_to_the_same_choices(toys, name: str) -> None:
    def rounds(selector: Selector, numbers: range) -> list[list[int]]:
        choices = []
        for number in numbers:
            choices.append(selector.choose(4))
            for client in choices[-1]:
                selector.heard(report(toys, client, 1.0 + client % 3, 1.0 + client % 5, job=number))
        return choices

    whole = rounds(ready(toys, name, 15), range(12))
    first = ready(toys, name, 15)
    assert rounds(first, range(5)) == whole[:5]
    second = SELECTORS[name]()
    second.prepare(toys.start_model(), 7)
    second.load_state_dict(toys.through_json(first.state_dict()))
    (plain, tensors), (wanted, wanted_tensors) = split(second.state_dict()), split(first.state_dict())
    assert json.dumps(plain) == json.dumps(wanted)
    assert all(torch.equal(tensors[key], wanted_tensors[key]) for key in wanted_tensors)
    assert rounds(second, range(5, 12)) == whole[5:]


@every_selector
def test_many_clients_are_scored_once_for_many_rounds(toys, monkeypatch, name: str) -> None:
    selector, looks = ready(toys, name, 2000), []
    score = selector._rows
    monkeypatch.setattr(selector, "_rows", lambda count, generator: looks.append(count) or score(count, generator))
    busy: list[int] = []
    seen: Counter[int] = Counter()
    for _ in range(20):
        chosen = selector.choose(2)
        assert len(set(chosen)) == 2
        assert not set(chosen) & set(busy)
        for client in chosen:
            selector.leave(client)
        for client in busy:
            selector.heard(report(toys, client, 1.0 + client % 3, 1.0 + client % 5))
        selector.free(busy)
        busy = chosen
        seen.update(chosen)
    assert looks == [20, 20]  # a hundredth of the clients, ten rounds of two
    assert max(seen.values()) <= 2
    assert selector.round == 20


@every_selector
def test_who_was_chosen_ahead_and_is_gone_is_passed_over(toys, name: str) -> None:
    selector = ready(toys, name, 1000)
    selector.choose(1)
    assert len(selector._ahead) == 9
    gone = {int(selector.candidates.clients[row]) for row in selector._ahead[1:]}
    last = int(selector.candidates.clients[selector._ahead[0]])
    for client in gone:
        selector.leave(client)
    assert selector.choose(1) == [last]
    assert not gone & {*selector.choose(1)}


@every_selector
def test_a_state_with_clients_chosen_ahead_goes_on_to_the_same_choices(toys, name: str) -> None:
    def rounds(selector: Selector, numbers: range) -> list[list[int]]:
        choices = []
        for number in numbers:
            choices.append(selector.choose(3))
            for client in choices[-1]:
                selector.heard(report(toys, client, 1.0 + client % 3, 1.0 + client % 5, job=number))
        return choices

    whole = rounds(ready(toys, name, 2000), range(9))
    first = ready(toys, name, 2000)
    assert rounds(first, range(5)) == whole[:5]
    assert first._ahead
    second = SELECTORS[name]()
    second.prepare(toys.start_model(), 7)
    second.load_state_dict(toys.through_json(first.state_dict()))
    assert rounds(second, range(5, 9)) == whole[5:]


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.sampled_from([-math.inf, 0.0, 0.5]) | st.floats(-1e6, 1e6), min_size=1, max_size=80),
    q=st.floats(0, 100),
)
def test_fast_percentiles_and_rankings_are_numpys(values: list[float], q: float) -> None:
    array = np.array(values)
    assert ranking(array).tolist() == np.argsort(array, kind="stable").tolist()
    finite = np.nan_to_num(array)
    assert percentile(finite, q) == np.percentile(finite, q)


def test_draws_without_replacement_follow_the_weights() -> None:
    weights = np.array([0.0, 1.0, 2.0, 5.0])
    firsts = Counter(int(sample(weights, 2, np.random.default_rng(seed))[0]) for seed in range(4000))
    assert firsts[0] == 0
    # Four deviations of a share p of 4000 draws are 4 sqrt(p (1 - p) / 4000), at most 0.032.
    assert [firsts[place] / 4000 for place in (1, 2, 3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.032)
    everything = sample(weights, 4, np.random.default_rng(0))
    assert sorted(everything) == [0, 1, 2, 3]
    assert everything[-1] == 0
    assert sorted(sample(np.zeros(3), 3, np.random.default_rng(0))) == [0, 1, 2]


def test_normalisation_of_nothing_and_of_equals_is_safe() -> None:
    assert normalised(np.array([2.0, 4.0, 3.0])).tolist() == [0.0, 1.0, 0.5]
    assert normalised(np.array([3.0, 3.0])).tolist() == [0.0, 0.0]
    assert len(normalised(np.empty(0))) == 0


def exploiting(toys, utilities: list[float], seconds: list[float] | None = None, **options) -> OortSelector:
    """An Oort that knows everybody, in its second round."""
    selector = OortSelector(exploration=0.0, exploration_min=0.0, **options)
    selector.prepare(toys.start_model(), 7)
    selector.free(range(len(utilities)))
    selector.choose(1)
    for client, loss in enumerate(utilities):
        selector.heard(report(toys, client, loss, seconds[client] if seconds else 1.0, examples=1))
    selector.round = 2
    return selector


def test_oorts_score_is_the_papers(toys) -> None:
    selector = exploiting(toys, [1.0, 3.0, 5.0], [1.0, 1.0, 4.0], round_threshold=30.0, clip=100.0)
    assert selector.preferred_duration == 1.0
    uncertainty = math.sqrt(0.1 * math.log(2))
    expected = [uncertainty, 0.5 + uncertainty, (1.0 + uncertainty) * (1.0 / 4.0) ** 2]
    assert selector.scores(np.arange(3)) == pytest.approx(expected)


def test_oort_clips_utilities_at_a_percentile(toys) -> None:
    selector = exploiting(toys, [*map(float, range(100)), 1e6], clip=98.0)
    scores = selector.scores(np.arange(101))
    assert scores[-1] == pytest.approx(scores[98])


def test_oort_draws_from_those_near_the_cut_with_probabilities(toys) -> None:
    selector = exploiting(toys, [0.0, 1.0, 9.0, 10.0], clip=100.0)
    rows, probabilities = selector.pool(np.arange(4), 1)
    assert sorted(rows) == [2, 3]  # the first beyond the cut is client 2; 0.7 of its score is above client 1's
    assert probabilities.sum() == pytest.approx(1.0)
    assert (probabilities >= 0).all()
    rows, probabilities = selector.pool(np.arange(4), 4)  # nobody is beyond the cut
    assert len(rows) == 4 or selector.scores(np.arange(4)).min() > 0
    assert probabilities.sum() == pytest.approx(1.0)


def test_oort_explores_less_and_less_and_then_only_exploits(toys) -> None:
    selector = OortSelector(decay=0.5)
    selector.prepare(toys.start_model(), 0)
    selector.free(range(100))
    seen: set[int] = set()
    fresh = []
    for _ in range(4):
        chosen = selector.choose(20)
        fresh.append(len(set(chosen) - seen))
        seen |= set(chosen)
        for client in chosen:
            selector.heard(report(toys, client, 1.0, 1.0))
    # All of the first round; then epsilon is 0.225, 0.2 (its least) and 0.2 of 20, and what remains exploits.
    assert fresh == [20, 5, 4, 4]
    for client in set(range(100)) - seen:
        selector.heard(report(toys, client, 1.0, 1.0))
    assert len(selector.choose(20)) == 20


def test_oorts_pacer_moves_with_the_utility(toys) -> None:
    selector = exploiting(toys, [1.0] * 6, pacer_rounds=2)

    def pace(loss: float, rounds: int) -> float:
        for _ in range(rounds):
            for client in selector.choose(3):
                selector.heard(report(toys, client, loss, 1.0, examples=1))
        return selector.threshold

    steady = pace(1.0, 8)
    assert steady > 30.0
    assert pace(1.0, 2) == steady + 5.0
    assert pace(100.0, 2) == steady  # the sum of the window has jumped


def test_oort_leaves_out_who_was_chosen_too_often_while_there_are_others(toys) -> None:
    selector = exploiting(toys, [100.0, 1.0, 1.0, 1.0], blacklist_rounds=2, cut_off=1.0)
    selector.candidates["chosen"][:] = [3, 1, 1, 1]
    assert 0 not in selector.choose(3)
    assert 0 in selector.choose(4)


def test_oort_prefers_the_useful_and_the_fast(toys) -> None:
    useful = Counter(
        client
        for seed in range(200)
        for client in seeded(exploiting(toys, [1.0, 1.0, 1.0, 10.0, 10.0, 10.0]), seed).choose(2)
    )
    assert min(useful[client] for client in (3, 4, 5)) > max(useful[client] for client in (0, 1, 2))
    fast = Counter(
        client
        for seed in range(200)
        for client in seeded(exploiting(toys, [5.0] * 6, [1.0, 1.0, 1.0, 9.0, 9.0, 9.0]), seed).choose(2)
    )
    assert min(fast[client] for client in (0, 1, 2)) > max(fast[client] for client in (3, 4, 5))


def seeded(selector: OortSelector, seed: int) -> OortSelector:
    selector._seed = seed
    return selector


def test_oorts_exploration_cannot_grow() -> None:
    with pytest.raises(ConfigError, match=r"exploration_min = 0.5 is above exploration = 0.3"):
        OortSelector(exploration=0.3, exploration_min=0.5)


@pytest.mark.parametrize(
    ("fair_by", "F"), [("choices", [1 / 3, -1 / 3, -1.0, 1.0]), ("examples", [0.5, 0.0, -0.5, 0.0])]
)
def test_heteroselects_score_is_the_papers(toys, fair_by: FairBy, F: list[float]) -> None:
    selector = HeteroSelect(fair_by=fair_by)
    selector.prepare(toys.start_model(), 0)
    selector.free(range(4))
    east, north = torch.zeros(toys.LAYOUT.size), torch.zeros(toys.LAYOUT.size)
    east[0], north[1] = 1.0, 1.0
    selector.choose(3)
    for client, (loss, examples, delta) in enumerate([(1.0, 10, east), (2.0, 20, east), (5.0, 30, north)]):
        selector.heard(report(toys, client, loss, 1.0, examples, delta=delta))
    selector.candidates["chosen"][:] = [1, 1, 1, 0]
    selector.candidates["choices"][:] = [1, 2, 3, 0]  # 1.5 on average
    selector._compare()
    selector.round = 3
    # g_bar is (2/3, 1/3): its cosines are 2/sqrt(5) with east and 1/sqrt(5) with north; the mean of n is 20.
    V, D = [0.0, 0.25, 1.0, 1.0], [1 - 2 / math.sqrt(5), 1 - 2 / math.sqrt(5), 1 - 1 / math.sqrt(5), 0.0]
    St = [0.0, 0.0, 0.0, 1.0]
    expected = [v + 0.3 * d + 0.2 * f + 0.2 * s for v, d, f, s in zip(V, D, F, St, strict=True)]
    assert selector.scores(np.arange(4)) == pytest.approx(expected, abs=1e-6)
    probabilities = selector.probabilities(np.arange(4))
    assert probabilities == pytest.approx(np.exp(expected) / np.exp(expected).sum(), abs=1e-6)
    assert probabilities.sum() == pytest.approx(1.0)
    scaled = (np.array(expected) - min(expected)) / (max(expected) - min(expected))
    assert [selector.score_of(client) for client in range(4)] == pytest.approx(scaled, abs=1e-6)
    updates = [report(toys, client, 1.0, 1.0) for client in (3, 1, 2)]
    weights = ScoreWeights(selector).weights(updates, 0, Ledger())
    assert weights == pytest.approx(scaled[[3, 1, 2]] / scaled[[3, 1, 2]].sum(), abs=1e-6)


def test_heteroselect_counts_how_often_each_client_was_chosen(toys) -> None:
    selector = HeteroSelect()
    selector.prepare(toys.start_model(), 0)
    selector.free(range(6))
    chosen = [client for _ in range(5) for client in selector.choose(2)]
    assert selector.candidates["choices"].tolist() == [chosen.count(client) for client in range(6)]


def test_scores_of_zero_weigh_the_same(toys) -> None:
    selector = HeteroSelect()
    selector.prepare(toys.start_model(), 0)
    selector.free(range(2))
    selector.candidates["score"][:] = 0.0
    updates = [report(toys, client, 1.0, 1.0) for client in range(2)]
    assert ScoreWeights(selector).weights(updates, 0, Ledger()) == (0.5, 0.5)


def test_heteroselects_scores_may_set_learning_rates(toys) -> None:
    strategy = toys.ready(build_strategy("heteroselect", {"clients_per_round": 2, "score_rate": True}))
    scheduler = strategy.scheduler
    strategy.begin(range(6), 0.0)
    scheduler.selection.candidates["score"][:] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    told = [strategy.policy.instruct(c, TrainSettings(), toys.start_model(), Ledger()) for c in range(6)]
    rates = [instruction.settings.learning_rate for instruction in told]
    assert rates == pytest.approx([0.1, 0.12, 0.14, 0.15, 0.15, 0.15])


def test_updates_of_zero_have_no_direction_and_no_diversity(toys) -> None:
    selector = HeteroSelect()
    selector.prepare(toys.start_model(), 0)
    selector.free(range(2))
    for client in range(2):
        selector.heard(report(toys, client, 1.0, 1.0, delta=torch.zeros(toys.LAYOUT.size)))
    assert len(selector.choose(2)) == 2
    assert selector.candidates["diversity"].tolist() == [0.0, 0.0]
