"""Tasks that live on different clients: real runs of FedBuff and FedQS on digits, with FedNTK-trace."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from fedmtl.protocol import Aggregation, GlobalModel
from fedmtl.state import join, split
from simulations import Experiment
from simulations.runner import simulated_fleet
from strategies.core.loop import Loop, Observer
from strategies.task_weights import FedNTKTrace

RATIO = "devices.ratio=9"
SMALL = [
    *("data.clients=20", "strategy.buffer_size=4", RATIO, "balancing.name=fedntk-trace"),
    "training.epochs=1",
]
APART = {
    "task-disjoint": ("tasks.ownership=disjoint", "data.partition=task-disjoint"),
    "disjoint": ("tasks.ownership=disjoint",),
    "skewed": ("tasks.ownership=skewed",),
}
STRATEGIES = {
    "fedbuff": ("strategy.name=fedbuff", "strategy.weight_base=data_size"),
    "fedbuff, every task": ("strategy.name=fedbuff", "strategy.max_buffer=12"),
    "fedqs-sgd": ("strategy.name=fedqs",),
    "fedqs-avg": ("strategy.name=fedqs", "strategy.aggregation=model"),
}
VERSIONS = 12


@dataclasses.dataclass
class Steps(Observer):
    """Models and server steps, and what the task weights were after each."""

    models: list[GlobalModel] = dataclasses.field(default_factory=list)
    steps: list[Aggregation] = dataclasses.field(default_factory=list)
    traces: list[tuple[float, ...]] = dataclasses.field(default_factory=list)

    def on_start(self, loop: Loop) -> None:
        self.models.append(loop.strategy.model)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.models.append(loop.strategy.model)
        self.steps.append(aggregation)
        if isinstance(loop.strategy.task_weights, FedNTKTrace):
            self.traces.append(loop.strategy.task_weights.traces)


def start(*overrides: str, base: Sequence[str] = SMALL) -> tuple[Loop, Steps]:
    experiment = Experiment.load(None, [*base, *overrides])
    seen = Steps()
    return Loop(experiment.new_strategy(), simulated_fleet(experiment), [seen]), seen


def run(*overrides: str, versions: int = VERSIONS, base: Sequence[str] = SMALL) -> Steps:
    loop, seen = start(*overrides, base=base)
    loop.run(lambda loop: "done" if loop.strategy.model.version >= versions else None)
    return seen


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The small run, whose orders take their seconds whatever they compute, as if these had been measured."""
    file = tmp_path_factory.mktemp("devices") / "seconds.csv"
    rows = enumerate(Experiment.load(None, SMALL).devices.seconds_per_order.tolist())
    file.write_text("client,seconds_per_order\n" + "".join(f"{client},{seconds}\n" for client, seconds in rows))
    trace = ["devices.kind=trace", f"devices.file={file}"]
    return [setting for setting in SMALL if setting != RATIO] + trace


def run_plain(*overrides: str) -> Steps:
    """A few rounds without the options of a buffer."""
    loop, seen = start(*overrides, base=())
    loop.run(lambda loop: "done" if loop.strategy.model.version >= 4 else None)
    return seen


@pytest.fixture(scope="module")
def run_once() -> Callable[..., Steps]:
    """Makes a run once, however many tests look at it."""
    return functools.cache(run)


@pytest.fixture(scope="module")
def run_plain_once() -> Callable[..., Steps]:
    return functools.cache(run_plain)


@pytest.mark.slow
@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_heads_and_traces_move_with_their_owners_and_not_a_bit_without(
    run_once: Callable[..., Steps], apart: str, strategy: str
) -> None:
    seen = run_once(*APART[apart], *STRATEGIES[strategy])
    assert len(seen.steps) == VERSIONS
    layout = seen.models[0].layout
    traces = [(float("nan"),) * 4, *seen.traces]
    still = 0
    for index, step in enumerate(seen.steps):
        before, after = seen.models[index].vector, seen.models[index + 1].vector
        carried = {task for update in step.updates for task in update.tasks}
        for task, head in enumerate(layout.heads):
            assert torch.equal(before[head], after[head]) == (task not in carried)
            if task not in carried:
                still += 1
                assert np.array_equal(traces[index][task], traces[index + 1][task], equal_nan=True)
        assert not torch.equal(before[layout.shared], after[layout.shared])
        for update in step.updates:
            assert len(update.task_traces) == len(update.tasks)
            others = [head for task, head in enumerate(layout.heads) if task not in update.tasks]
            assert all(update.delta[head].count_nonzero() == 0 for head in others)
            assert all(1 / 50 <= weight <= 50 for weight in update.mean_task_weights)
            assert update.base_version < step.version
    assert still or "every task" in strategy
    keys = [update.key for step in seen.steps for update in step.updates]
    assert len(keys) == len(set(keys))
    assert any(weight != 1.0 for update in seen.steps[-1].updates for weight in update.mean_task_weights)


@pytest.mark.slow
def test_averaged_heads_stay_bounded_where_added_ones_diverge(measured: list[str]) -> None:
    """FedQS-SGD adds stale updates at full weight: see `strategies.aggregators.head_models`."""
    common = (*APART["task-disjoint"], *STRATEGIES["fedqs-sgd"], "training.epochs=2")
    averaged = run(*common, versions=60, base=measured).models[-1]
    added = run(*common, "balancing.head_aggregation=strategy", versions=60, base=measured).models[-1]
    ink = averaged.layout.heads[2]
    assert float(averaged.vector[ink].abs().max()) < 10.0
    assert float(added.vector[ink].abs().max()) > 1000.0


def test_orders_weigh_with_ones_until_every_task_was_seen(run_once: Callable[..., Steps]) -> None:
    seen = run_once(*APART["task-disjoint"], *STRATEGIES["fedbuff"])
    first = next(index for index, traces in enumerate(seen.traces, start=1) if not np.isnan(traces).any())
    assert first > 1
    sent = {update.base_version: update.mean_task_weights for step in seen.steps for update in step.updates}
    assert {weights for version, weights in sent.items() if version < first} == {(1.0,)}
    assert (1.0,) not in {weights for version, weights in sent.items() if version >= first}


@pytest.mark.parametrize("ownership", ["all", "disjoint", "skewed"])
def test_without_exponent_and_coverage_it_is_fedbuff_to_the_bit(ownership: str, measured: list[str]) -> None:
    """But for the time that its probes take."""
    common = [
        f"tasks.ownership={ownership}",
        "strategy.name=fedbuff",
        "strategy.weight_base=data_size",
        "strategy.a=0.5",
        "balancing.clip=1.0",
    ]
    spec = (
        "balancing.head_clip=0.0",
        "balancing.align=0",
        "balancing.head_step=gradient",
        "balancing.head_aggregation=strategy",
    )
    neutral = ("balancing.exponent=0.0", "balancing.coverage=false", *spec)
    ours = run(*common, *neutral, base=measured)
    plain = run(*common, "balancing.name=equal", base=measured)
    assert not torch.equal(ours.models[0].vector, ours.models[-1].vector)
    for one, other in itertools.zip_longest(ours.models, plain.models):
        assert torch.equal(one.vector, other.vector)
    weighted = run(*common, *spec, base=measured)
    assert not torch.equal(weighted.models[-1].vector, plain.models[-1].vector)


@pytest.mark.parametrize("ownership", ["all", "disjoint", "skewed"])
@pytest.mark.parametrize("strategy", ["fedbuff", "fedqs"])
def test_it_costs_8_t_and_16_bytes_up_and_4_t_down(ownership: str, strategy: str, measured: list[str]) -> None:
    common = [f"tasks.ownership={ownership}", f"strategy.name={strategy}", "strategy.buffer_size=20"]
    # The first orders, which FedQS answers alike whatever was learned.
    ours, plain = (
        {update.key: update for step in run(*common, *more, versions=1, base=measured).steps for update in step.updates}
        for more in ([], ["balancing.name=equal"])
    )
    assert ours.keys() == plain.keys()
    for key, update in ours.items():
        if key.job == 0:
            tasks = len(update.tasks)
            assert update.bytes_up - plain[key].bytes_up == 8 * tasks + 16
            assert update.bytes_down - plain[key].bytes_down == 4 * tasks


@pytest.mark.parametrize("strategy", ["fedbuff, every task", "fedqs-avg"])
@pytest.mark.parametrize("versions", [1, 4, 9])
def test_a_run_cut_after_any_flush_goes_on_to_the_same_bits(
    run_once: Callable[..., Steps], strategy: str, versions: int
) -> None:
    overrides = (*APART["task-disjoint"], *STRATEGIES[strategy])
    whole = run_once(*overrides)
    cut, _ = start(*overrides)
    cut.run(lambda loop: "cut" if loop.strategy.model.version >= versions else None)
    plain, tensors = split(cut.state_dict())
    rest, seen = start(*overrides)
    rest.load_state_dict(join(plain, tensors))
    rest.run(lambda loop: "done" if loop.strategy.model.version >= VERSIONS else None)
    for one, other in zip(whole.models[versions:], seen.models, strict=True):
        assert one.version == other.version
        assert torch.equal(one.vector, other.vector)
    assert np.array_equal(whole.traces[versions:], seen.traces, equal_nan=True)


@pytest.mark.parametrize(
    "options",
    [
        ("balancing.statistic=denoised",),
        ("balancing.statistic=top_eig", "balancing.batches=3"),
        ("balancing.probe=sr",),
        ("balancing.coverage=false",),
        ("balancing.omega_norm=sum_K",),
        ("balancing.omega_norm=none",),
        ("balancing.align=0",),
        ("balancing.damping=1.0",),
        ("balancing.head_step=gradient",),
        ("balancing.head_aggregation=strategy",),
        ("balancing.head_step=gradient", "balancing.head_weight=weighted"),
        ("balancing.head_step=gradient", "balancing.head_clip=0.1"),
    ],
)
def test_every_switch_does_something_and_trains(run_once: Callable[..., Steps], options: tuple[str, ...]) -> None:
    """The last of the options against the same run without it."""
    common = (*APART["skewed"], *STRATEGIES["fedbuff"])
    plain, switched = (run_once(*common, *more) for more in (options[:-1], options))
    assert torch.isfinite(switched.models[-1].vector).all()
    assert not torch.equal(plain.models[-1].vector, switched.models[-1].vector)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [(), *APART.values()], ids=str)
@pytest.mark.parametrize("strategy", ["fsmgda", "fedcmoo"])
def test_baselines_train_wherever_the_tasks_are_and_cost_what_they_should(
    run_plain_once: Callable[..., Steps], strategy: str, apart: tuple[str, ...]
) -> None:
    small = ["data.clients=20", "balancing.name=equal", "devices.per=step", *apart]
    ours, plain = (run_plain_once(f"strategy.name={name}", *small) for name in (strategy, "fedavg"))
    layout = ours.models[0].layout
    shared = 4 * (layout.shared.stop - layout.shared.start)
    assert not torch.equal(ours.models[0].vector, ours.models[-1].vector)
    for index, step in enumerate(ours.steps):
        carried = {task for update in step.updates for task in update.tasks}
        for task, head in enumerate(layout.heads):
            moved = not torch.equal(ours.models[index].vector[head], ours.models[index + 1].vector[head])
            assert moved == (task in carried)
    for update, other in zip(ours.steps[0].updates, plain.steps[0].updates, strict=True):
        tasks = len(update.tasks)
        more_up, more_down = update.bytes_up - other.bytes_up, update.bytes_down - other.bytes_down
        if strategy == "fsmgda":
            assert (more_up, more_down) == ((tasks - 1) * shared, 0)
            assert update.duration == pytest.approx(tasks * other.duration)
        else:
            assert (more_up, more_down) == (shared + 4 * tasks, 4 * tasks)
            assert update.duration > other.duration
