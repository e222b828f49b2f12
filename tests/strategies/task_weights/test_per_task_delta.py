"""NTKMTL across clients from a change of the backbone for each task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fedmtl.compression import SharedRandomness
from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Arrival, GlobalModel, Update
from strategies.aggregators import GradientAggregator, ModelAggregator, Optimized
from strategies.aggregators.per_task import PerTaskAggregator
from strategies.aggregators.robust import robust
from strategies.aggregators.server_optimizers import SGD
from strategies.core.kinds import Step
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy
from strategies.schedulers import Buffered
from strategies.task_weights import FedNTKTrace, PerTaskDeltas, build_task_weights
from strategies.weightings import Uniform

WIDTH = 3


def layout(tasks: int) -> ParameterLayout:
    heads = tuple(slice(WIDTH + i, WIDTH + i + 1) for i in range(tasks))
    return ParameterLayout((), slice(0, WIDTH), heads, slice(WIDTH + tasks, WIDTH + tasks))


def update(
    changes: dict[int, Sequence[float]], tasks: int, client: int = 0, sent: dict[int, float] | None = None
) -> Update:
    """What a client sends that was told the weights `sent`."""
    vectors: dict[int, Tensor] = {task: torch.zeros(layout(tasks).size) for task in changes}
    for task, change in changes.items():
        vectors[task][: len(change)] = torch.tensor(change)
    delta = torch.stack(list(vectors.values())).sum(0)
    for task in changes:
        delta[layout(tasks).heads[task]] = 1.0 + task
    rest = {f"task {task}": vector for task, vector in list(vectors.items())[1:]}
    weights = tuple((sent or {}).get(task, 1.0) for task in changes)
    return Update(client, 0, 0, delta, 10, 2, tuple(changes), mean_task_weights=weights, vectors=rest)


def make(tasks: int, **options) -> tuple[PerTaskDeltas, PerTaskAggregator]:
    part = PerTaskDeltas(**options)
    part.prepare(GlobalModel(0, torch.zeros(layout(tasks).size), layout(tasks)), 0)
    aggregator, _ = part.adjust(GradientAggregator(Uniform()), build_strategy("fedbuff", {}).policy)
    assert isinstance(aggregator, PerTaskAggregator)
    return part, aggregator


def moved(aggregator: PerTaskAggregator, updates: Sequence[Update], tasks: int) -> Tensor:
    model = GlobalModel(0, torch.zeros(layout(tasks).size), layout(tasks))
    vector, weights = aggregator.aggregate(Step(model, updates, {}, "full", frozenset(), None))  # type: ignore[arg-type]
    assert len(weights) == len(updates)
    return vector


@pytest.mark.parametrize(
    ("rows", "omega", "d"),
    [
        (((3.0, 4.0), (1.0, 0.0)), (0.721110, 3.605551), (5.768882, 2.884441, 0.0)),
        (
            ((1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (1.0, 1.0, 1.0)),
            (1.632993, 0.816497, 0.942809),
            (2.575802, 2.575802, 0.942809),
        ),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_the_step_is_ntkmtl_s_wherever_the_tasks_live(rows, omega, d, apart: bool) -> None:
    tasks = len(rows)
    part, aggregator = make(tasks)
    if apart:
        updates = [update({task: row}, tasks, task) for task, row in enumerate(rows)]
    else:
        updates = [update(dict(enumerate(rows)), tasks)]
    vector = moved(aggregator, updates, tasks)
    assert part.weights() == pytest.approx(omega, abs=1e-6)
    assert vector[:WIDTH].tolist() == pytest.approx(d, abs=1e-5)
    assert vector[WIDTH:].tolist() == [1.0 + task for task in range(tasks)]


@pytest.mark.parametrize("old", [0.25, 3.0])
def test_a_change_that_was_made_with_an_old_weight_counts_with_the_new_one(old: float) -> None:
    """It is longer by the old weight; among owners who were told different ones it counts as theirs."""
    fresh = [update({0: (3.0, 4.0)}, 2), update({1: (1.0, 0.0)}, 2, 1), update({0: (1.0, 1.0)}, 2, 2)]
    stale = [fresh[0], fresh[1], update({0: (old, old)}, 2, 2, {0: old})]
    (one, first), (other, second) = make(2), make(2)
    assert torch.allclose(moved(first, fresh, 2), moved(second, stale, 2), rtol=1e-6)
    assert one.weights() == pytest.approx(other.weights(), rel=1e-6)


def test_all_weighted_changes_of_a_step_are_of_one_length() -> None:
    part, aggregator = make(3, w_max=1e6)
    rows = {0: (30.0, 1.0, 0.0), 1: (0.0, 0.01, 0.02), 2: (1.0, -1.0, 0.5)}
    moved(aggregator, [update(rows, 3)], 3)
    lengths = [weight * math.hypot(*row) for weight, row in zip(part.weights(), rows.values(), strict=True)]
    mean = math.sqrt(math.fsum(math.hypot(*row) ** 2 for row in rows.values()) / 3)
    assert lengths == pytest.approx([mean] * 3, rel=1e-5)


def test_weights_are_one_until_every_task_was_seen_and_an_absent_task_keeps_its_size() -> None:
    part, aggregator = make(2)
    vector = moved(aggregator, [update({0: (0.0, 2.0)}, 2)], 2)
    assert part.weights() == (1.0, 1.0)
    assert vector[:WIDTH].tolist() == [0.0, 2.0, 0.0]
    assert vector[WIDTH + 1] == 0.0
    moved(aggregator, [update({1: (6.0, 0.0)}, 2)], 2)
    assert part.sizes == pytest.approx((4.0, 36.0))
    assert part.weights() == pytest.approx((math.sqrt(20 / 4), math.sqrt(20 / 36)))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_weights_stay_within_the_clip_whatever_the_change(size: float) -> None:
    part, aggregator = make(2)
    vector = moved(aggregator, [update({0: (size, 0.0), 1: (1.0, 1.0)}, 2)], 2)
    assert all(1 / 50 <= weight <= 50 for weight in part.weights())
    assert vector.isfinite().all()


def test_without_exponent_tasks_are_added_as_they_are() -> None:
    part, aggregator = make(2, exponent=0.0)
    vector = moved(aggregator, [update({0: (3.0, 4.0), 1: (1.0, 0.0)}, 2)], 2)
    assert part.weights() == (1.0, 1.0)
    assert vector[:WIDTH].tolist() == [4.0, 4.0, 0.0]


def test_a_server_optimiser_takes_the_step_and_the_clients_train_apart() -> None:
    part = build_task_weights("fedntk-trace", {"extra": "per_task_delta", "exponent": 1.0, "w_max": 9.0})
    assert isinstance(part, PerTaskDeltas)
    assert (part.exponent, part.w_max) == (1.0, 9.0)
    strategy = build_strategy("fedbuff", {"server_momentum": 0.5}, part)
    assert strategy.policy.name == "tasks-apart"
    assert isinstance(strategy.aggregator, Optimized)
    assert isinstance(strategy.aggregator.base, PerTaskAggregator)
    assert strategy.task_weights.balancing.name == "equal"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fedqs", {}, "FedQSPolicy: clients train their tasks apart"),
        ("scaffold", {}, "ControlVariates"),
        ("fedavg", {}, "ModelAggregator: it has no place for a change of each task"),
        ("dfedsam", {}, "per_task_delta"),
        ("fedasync", {}, "Proximal: clients train their tasks apart"),
        ("ferret", {}, "the first task's change"),
        ("fsmgda", {}, "trains each task apart"),
    ],
)
def test_strategies_that_have_no_place_for_it_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_strategy(name, options, PerTaskDeltas())


def test_other_misfits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"balancing\.smoothing = 0\.5 .* leave balancing\.smoothing out"):
        build_task_weights("fedntk-trace", {"extra": "per_task_delta", "smoothing": 0.5})
    with pytest.raises(ConfigError, match="another part: PerTaskDeltas"):
        FedNTKTrace(extra="per_task_delta")
    for aggregator in (ModelAggregator(Uniform()), robust(Uniform(), rule="median")):
        with pytest.raises(ConfigError, match=f"{type(aggregator).__name__}: it has no place"):
            Strategy(Buffered(buffer_size=2), Optimized(aggregator, SGD(1.0, 0.5)), task_weights=PerTaskDeltas())
    with pytest.raises(ConfigError, match="exact-updates"):
        build_strategy("fedbuff", {}, PerTaskDeltas()).compress(SharedRandomness())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vectors": {}}, "lacks the change of task 1"),
        ({"vectors": {"task 1": torch.zeros(4)}}, r"task 1 is torch.float32 of shape (4,)"),
        ({"vectors": {"task 1": torch.full((9,), math.nan)}}, "task 1 is not finite"),
        ({"mean_task_weights": (1.0,)}, "mean_task_weights has 1 numbers, expected 2 or none"),
        ({"mean_task_weights": (0.0, 1.0)}, "claims to have weighted"),
        ({"mean_task_weights": (1e-300, 1.0)}, "claims to have weighted"),
        ({"mean_task_weights": (1.0, 51.0)}, "claims to have weighted"),
        ({"mean_task_weights": ()}, "carries 0 weights of 2 tasks"),
        ({"mean_task_weights": (1.0, math.nan)}, "mean_task_weights is not finite"),
    ],
)
def test_an_update_that_lacks_what_was_asked_for_is_turned_down(toys, fields: dict, message: str) -> None:
    strategy = toys.ready(build_strategy("fedbuff", {}, PerTaskDeltas()))
    strategy.orders(strategy.begin([0], 0.0).decision.assignments)
    whole = {"vectors": {"task 1": torch.zeros(9)}, "mean_task_weights": (1.0, 1.0)}
    (rejection,) = strategy.on_event(Arrival(1.0, toys.make_update(**(whole | fields)))).rejections
    assert message in rejection.reason


def test_a_state_goes_on_to_the_same_bits(toys) -> None:
    part, aggregator = make(2)
    moved(aggregator, [update({0: (3.0, 4.0)}, 2)], 2)
    rest, others = make(2)
    rest.load_state_dict(toys.through_json(part.state_dict()))
    for trial in (aggregator, others):
        moved(trial, [update({1: (0.3, 0.4)}, 2)], 2)
    assert rest.state_dict() == part.state_dict()
    assert rest.weights() != (1.0, 1.0)
