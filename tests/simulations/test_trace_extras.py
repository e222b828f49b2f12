"""FedNTK-trace's extras in real runs: sketches and changes of each task; what they cost, and that runs can be cut."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch

from clients.trainer import LocalTrainer
from fedmtl.errors import ConfigError
from fedmtl.protocol import Aggregation, Assignment, GlobalModel, TrainOrder, Update
from fedmtl.state import join, split
from fedmtl.wire import JSON, STATE, TENSORS, WireError, pack_update, read_update
from simulations import Experiment
from simulations.runner import simulated_fleet
from strategies.core.loop import Loop, Observer

BASE = (
    *("data.clients=12", "devices.ratio=9", "balancing.name=fedntk-trace", "strategy.name=fedbuff"),
    "training.epochs=1",
)
SKETCH = "balancing.extra=sketch"
DELTAS = "balancing.extra=per_task_delta"
APART = {
    "all": ("tasks.ownership=all",),
    "task-disjoint": ("tasks.ownership=disjoint", "data.partition=task-disjoint"),
    "skewed": ("tasks.ownership=skewed",),
}


@dataclasses.dataclass
class Steps(Observer):
    """Models and server steps."""

    models: list[GlobalModel] = dataclasses.field(default_factory=list)
    steps: list[Aggregation] = dataclasses.field(default_factory=list)

    def on_start(self, loop: Loop) -> None:
        self.models.append(loop.strategy.model)

    def on_aggregation(self, loop: Loop, aggregation: Aggregation) -> None:
        self.models.append(loop.strategy.model)
        self.steps.append(aggregation)


def start(*overrides: str) -> tuple[Loop, Steps]:
    experiment = Experiment.load(None, [*BASE, "strategy.buffer_size=4", *overrides])
    seen = Steps()
    return Loop(experiment.new_strategy(), simulated_fleet(experiment), [seen]), seen


def steps_of(*overrides: str, versions: int = 8) -> tuple[Loop, Steps]:
    loop, seen = start(*overrides)
    loop.run(lambda loop: "done" if loop.strategy.model.version >= versions else None)
    return loop, seen


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("extra", [SKETCH, DELTAS])
def test_tasks_are_weighed_wherever_they_live(extra: str, apart: str) -> None:
    loop, seen = steps_of(extra, *APART[apart])
    assert loop.rejected == 0
    assert torch.isfinite(seen.models[-1].vector).all()
    omega = loop.strategy.task_weights.weights()
    assert omega is not None
    assert len(set(omega)) > 1
    assert all(1 / 50 <= weight <= 50 for weight in omega)
    layout = seen.models[0].layout
    for index, step in enumerate(seen.steps):
        carried = {task for update in step.updates for task in update.tasks}
        before, after = seen.models[index].vector, seen.models[index + 1].vector
        for task, head in enumerate(layout.heads):
            assert torch.equal(before[head], after[head]) == (task not in carried)


@pytest.mark.parametrize(("apart", "size"), [("all", 256), ("task-disjoint", 16), ("skewed", 256)])
def test_a_sketch_costs_four_bytes_for_each_entry_and_task_and_nothing_down(apart: str, size: int) -> None:
    """Beside 8 T + 16 for the traces."""
    common = (*APART[apart], "strategy.buffer_size=12")
    (_, ours), (_, plain) = (
        steps_of(*common, *more, versions=1) for more in ((SKETCH, f"balancing.sketch_size={size}"), ())
    )
    for update, other in zip(ours.steps[0].updates, plain.steps[0].updates, strict=True):
        tasks = len(update.tasks)
        assert update.key == other.key
        assert update.bytes_up - other.bytes_up == 4 * size * tasks
        assert update.bytes_down == other.bytes_down
        assert update.task_sketches is not None
        assert update.task_sketches.shape == (tasks, size)
        assert torch.equal(update.delta, other.delta)  # sketching changes nothing else


@pytest.mark.parametrize("apart", APART)
def test_changes_of_each_task_cost_the_backbone_t_times(apart: str) -> None:
    common = (*APART[apart], "strategy.buffer_size=12")
    (_, ours), (_, plain) = (steps_of(*common, *more, versions=1) for more in ((DELTAS,), ("balancing.name=equal",)))
    shared = ours.models[0].layout.shared
    others = {update.key: update for update in plain.steps[0].updates}
    # Tasks that are trained apart take time, so that not all clients are met in both runs.
    both = [update for update in ours.steps[0].updates if update.key in others]
    assert len(both) > 6
    for update in both:
        tasks, other = len(update.tasks), others[update.key]
        assert update.bytes_up - other.bytes_up == 4 * (shared.stop - shared.start) * (tasks - 1)
        assert update.bytes_down - other.bytes_down == 4 * tasks


@pytest.mark.parametrize("extra", [SKETCH, DELTAS])
@pytest.mark.parametrize("events", [3, 17])
def test_a_run_cut_at_any_event_goes_on_to_the_same_bits(extra: str, events: int) -> None:
    overrides = (extra, *APART["skewed"], "strategy.flush_seconds=3.0")
    whole, expected = steps_of(*overrides, versions=7)
    cut, _ = start(*overrides)
    cut.run(lambda loop: "cut" if loop.arrivals >= events else None)
    plain, tensors = split(cut.state_dict())
    rest, seen = start(*overrides)
    rest.load_state_dict(join(plain, tensors))
    rest.run(lambda loop: "done" if loop.strategy.model.version >= 7 else None)
    assert torch.equal(seen.models[-1].vector, expected.models[-1].vector)
    assert rest.strategy.task_weights.weights() == whole.strategy.task_weights.weights()


def trainer_and_order(*overrides: str) -> tuple[LocalTrainer, TrainOrder]:
    experiment = Experiment.load(None, [*BASE, *APART["skewed"], *overrides])
    strategy = experiment.new_strategy()
    client = max(range(12), key=lambda c: len(experiment.data.tasks_of(c)))
    strategy.begin(range(12), 0.0)
    (order,) = strategy.orders([Assignment(client, 1)])
    return LocalTrainer(experiment.new_model(), experiment.data), order


def content_of(update: Update) -> dict:
    packet = pack_update(update)
    return {STATE: {JSON: packet.text}, TENSORS: {name: _Sent(array) for name, array in packet.arrays.items()}}


class _Sent:
    """An array as a message holds it: the bytes of an .npy file."""

    def __init__(self, array: np.ndarray) -> None:
        file = io.BytesIO()
        np.save(file, array)
        self.data = file.getvalue()


def test_sketches_travel_to_the_bit_and_rubbish_in_their_place_is_seen() -> None:
    trainer, order = trainer_and_order(SKETCH)
    update = trainer.train(order)
    assert update.task_sketches is not None
    found = read_update(content_of(update), order)
    assert found.task_sketches is not None
    assert torch.equal(found.task_sketches, update.task_sketches)
    rubbish = {
        "is not finite": torch.full_like(update.task_sketches, float("nan")),
        "float32 of shape": update.task_sketches.double(),
        "of shape .2, ": update.task_sketches[:-1],
        "expected": 3.0,
    }
    for message, sketches in rubbish.items():
        update.task_sketches = sketches  # type: ignore[assignment]
        with pytest.raises(WireError, match=f"task_sketches.*{message}"):
            read_update(content_of(update), order)


def test_a_job_s_sketch_is_that_of_the_gradient_that_its_traces_are_of() -> None:
    """One batch, and as many entries as the backbone has: the sketch is as long as the gradient."""
    options = (SKETCH, "balancing.batches=1", "balancing.sketch_size=100000")
    trainer, order = trainer_and_order(*options)
    update = trainer.train(order)
    assert update.task_sketches is not None
    assert update.task_sketches.square().sum(1).tolist() == pytest.approx(update.task_traces, rel=1e-5)


def test_one_step_of_a_task_apart_is_linear_in_its_weight() -> None:
    """So that a change made with an old weight can be made up for exactly; the clip must not bind."""
    trainer, order = trainer_and_order(DELTAS, "training.clip=0.0")
    weights = (0.5, 3.0, 1.5, 8.0)
    plain, weighted = trainer.train(order), trainer.train(dataclasses.replace(order, task_factors=weights))
    shared = order.base.layout.shared
    tasks = plain.tasks
    assert len(tasks) > 1
    assert weighted.mean_task_weights == tuple(weights[task] for task in tasks)
    for task in tasks[1:]:
        one, other = (u.vectors[f"task {task}"][shared] for u in (plain, weighted))
        assert one.count_nonzero() > 0
        # A change is the difference of float32 values of about 1, and no more precise than these.
        assert torch.allclose(weights[task] * one, other, rtol=1e-4, atol=8e-7 * weights[task])
    for head in order.base.layout.heads:
        assert torch.equal(plain.delta[head], weighted.delta[head])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("strategy.name=fedqs", DELTAS), "FedQSPolicy"),
        (("strategy.name=fedavg-safl", DELTAS), "ModelAggregator"),
        (("strategy.name=dfedsam", SKETCH), "models of their own"),
        ((SKETCH, "balancing.probe=sr"), "only the full probe"),
        ((DELTAS, "balancing.coverage=false"), r"balancing\.coverage"),
    ],
)
def test_misfits_are_refused_when_the_experiment_is_read(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment.load(None, [*BASE, *overrides])


@pytest.mark.slow("ray")
@pytest.mark.parametrize("extra", [SKETCH, DELTAS])
def test_ray_gives_the_bits_of_one_process(extra: str) -> None:
    vectors = []
    for workers in ("inline", "ray"):
        loop, seen = steps_of(extra, f"engine.workers={workers}", "engine.count=2", versions=3)
        loop.fleet.close()  # type: ignore[attr-defined]
        vectors.append(seen.models[-1].vector)
    assert torch.equal(*vectors)
