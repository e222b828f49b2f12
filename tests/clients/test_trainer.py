"""The sequential trainer against torch.optim and plain autograd on the same batches."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from clients.trainer import LocalTrainer, local_steps
from fedmtl.data.federated import Examples, FederatedData, Shards
from fedmtl.models import build_model
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings
from fedmtl.tasks import Task

TASKS = (Task("kind", "classification", 3), Task("flag", "binary"), Task("size", "regression", loss_factor=2.0))
SIZES = (23, 4, 1)


@pytest.fixture(scope="module")
def data() -> FederatedData:
    generator = torch.Generator().manual_seed(1)
    total = sum(SIZES)
    features = torch.randn(total, 5, generator=generator)
    targets = (
        torch.randint(0, 3, (total,), generator=generator),
        torch.randint(0, 2, (total,), generator=generator).float(),
        torch.randn(total, generator=generator),
    )
    train = Examples(features, targets)
    shards = Shards(np.split(np.arange(total), np.cumsum(SIZES)[:-1]))
    nothing = Shards([np.empty(0, dtype=np.int64)] * len(SIZES))
    owners = np.array([[True, True, True], [True, False, True], [False, True, False]])
    return FederatedData(TASKS, train, train.take(torch.arange(5)), shards, nothing, owners)


@pytest.fixture
def start(data: FederatedData) -> GlobalModel:
    model = build_model("mlp", {"hidden": (8,)}, data.input_shape, TASKS, 3)
    layout = ParameterLayout.of(model)
    return GlobalModel(7, layout.pack(model), layout)


def trainer(data: FederatedData) -> LocalTrainer:
    return LocalTrainer(build_model("mlp", {"hidden": (8,)}, data.input_shape, TASKS, 99), data)


def order(
    base: GlobalModel, client: int = 0, steps: int | None = None, seed: int = 5, **settings: object
) -> TrainOrder:
    chosen = dataclasses.replace(TrainSettings(epochs=2, batch_size=10, clip=0.0), **settings)
    return TrainOrder(client, 0, base, steps, chosen, None, Balancing("equal"), "plain", {}, {}, seed)


def reference(data: FederatedData, what: TrainOrder) -> torch.Tensor:
    """The same job with a fresh module, torch.optim.SGD, and batches drawn as the trainer documents it."""
    settings = what.settings
    model = build_model("mlp", {"hidden": (8,)}, data.input_shape, TASKS, 0)
    layout = what.base.layout
    layout.bind(model, what.base.vector.clone())
    owned = data.tasks_of(what.client)
    names = [TASKS[task].name for task in owned]
    parameters = [*model.backbone.parameters(), *(p for name in names for p in model.heads[name].parameters())]
    start = [parameter.detach().clone() for parameter in parameters]
    optimiser = torch.optim.SGD(
        parameters, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(what.seed)
    shard = data.shards[what.client]
    remaining = local_steps(what, len(shard))
    while remaining:
        shuffled = shard[torch.randperm(len(shard), generator=generator)]
        for batch in shuffled.split(settings.batch_size)[:remaining]:
            examples = data.train.take(batch)
            representation = model.backbone(examples.features)
            loss = sum(
                TASKS[t].mean_loss(model.heads[TASKS[t].name](representation), examples.targets[t]) for t in owned
            )
            drift = sum((p - s).square().sum() for p, s in zip(parameters, start, strict=True))
            optimiser.zero_grad()
            (loss + settings.proximal / 2 * drift).backward()
            parts = [model.backbone, *(model.heads[name] for name in names)]
            whole = [parameters] if settings.clip_by == "model" else [list(part.parameters()) for part in parts]
            for bounded in whole if settings.clip else []:
                torch.nn.utils.clip_grad_norm_(bounded, settings.clip)
            optimiser.step()
            remaining -= 1
    return layout.pack(model) - what.base.vector


@pytest.mark.parametrize("client", [0, 1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        *(
            {},
            {"momentum": 0.9},
            {"clip": 0.5},
            {"proximal": 0.3},
            {"weight_decay": 0.1},
            {"momentum": 0.5, "clip": 1.0},
        ),
        {"clip": 0.5, "clip_by": "part", "momentum": 0.5, "proximal": 0.3, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_a_job_equals_the_same_job_done_with_torch_optim(
    data: FederatedData, start: GlobalModel, client: int, settings: dict[str, object]
) -> None:
    what = order(start, client, **settings)
    update = trainer(data).train(what)
    # Sums are taken in another order, and clipping divides by norm + 1e-6 in torch: float32 rounding over a few steps.
    torch.testing.assert_close(update.delta, reference(data, what), rtol=1e-4, atol=2e-6)
    assert update.examples == SIZES[client]
    assert update.tasks == data.tasks_of(client)
    assert update.base_version == 7


def test_steps_override_epochs_and_run_on_through_epochs(data: FederatedData, start: GlobalModel) -> None:
    what = order(start, 0, steps=7)  # an epoch has 3 steps
    update = trainer(data).train(what)
    assert update.steps == 7
    torch.testing.assert_close(update.delta, reference(data, what), rtol=1e-4, atol=2e-6)


def test_a_shard_smaller_than_a_batch_is_trained_and_not_dropped(data: FederatedData, start: GlobalModel) -> None:
    update = trainer(data).train(order(start, 2))
    assert update.steps == 2
    assert update.delta.abs().max() > 0


def test_heads_of_tasks_that_the_client_does_not_own_do_not_move(data: FederatedData, start: GlobalModel) -> None:
    update = trainer(data).train(order(start, 1))
    assert update.delta[start.layout.heads[1]].abs().max() == 0
    assert update.delta[start.layout.heads[0]].abs().max() > 0


def test_an_update_depends_on_the_order_alone(data: FederatedData, start: GlobalModel) -> None:
    one, other = trainer(data), trainer(data)
    for client in (1, 2, 0):
        other.train(order(start, client, momentum=0.9, seed=11))
    first, second = one.train(order(start, 0, momentum=0.9)), other.train(order(start, 0, momentum=0.9))
    assert torch.equal(first.delta, second.delta)
    assert first.task_losses == second.task_losses


def test_another_seed_gives_other_batches(data: FederatedData, start: GlobalModel) -> None:
    one = trainer(data)
    assert not torch.equal(one.train(order(start, 0)).delta, one.train(order(start, 0, seed=6)).delta)


def test_the_base_vector_is_not_written_to(data: FederatedData, start: GlobalModel) -> None:
    before = start.vector.clone()
    update = trainer(data).train(order(start, 0))
    assert torch.equal(start.vector, before)
    kept = update.delta.clone()
    trainer(data).train(order(start, 1))
    assert torch.equal(update.delta, kept)


def test_heavy_ball_starts_empty_in_every_job(data: FederatedData, start: GlobalModel) -> None:
    one = trainer(data)
    first = one.train(order(start, 0, momentum=0.5))
    again = one.train(order(start, 0, momentum=0.5))
    assert torch.equal(first.delta, again.delta)


def test_a_loss_that_is_not_finite_makes_the_update_a_failure_that_names_the_task(
    data: FederatedData, start: GlobalModel
) -> None:
    vector = start.vector.clone()
    vector[start.layout.heads[2]] = math.nan
    update = trainer(data).train(order(dataclasses.replace(start, vector=vector), 0))
    assert update.failure == "loss of task 'size' is nan in step 1"


def test_a_short_last_batch_can_be_dropped(data: FederatedData, start: GlobalModel) -> None:
    """The rest of the job is as with the first examples of each epoch's shuffle alone: 20 of the 23."""
    what = order(start, 0, tiny_clients="ref_drop_last")
    update = trainer(data).train(what)
    assert update.steps == 4
    whole = trainer(data).train(order(start, 0, steps=2))
    first = trainer(data).train(order(start, 0, steps=2, tiny_clients="ref_drop_last"))
    assert torch.equal(first.delta, whole.delta)
    assert not torch.equal(update.delta, trainer(data).train(order(start, 0, steps=4)).delta)


def test_a_client_that_drops_its_only_batch_trains_nothing_and_answers(data: FederatedData, start: GlobalModel) -> None:
    for steps in (None, 5):
        update = trainer(data).train(order(start, 1, steps=steps, tiny_clients="ref_drop_last"))
        assert (update.steps, update.examples, update.failure, update.task_losses) == (0, 4, None, ())
        assert update.delta.abs().max() == 0


def test_a_batch_that_is_just_full_is_not_dropped(data: FederatedData, start: GlobalModel) -> None:
    kept, dropped = (order(start, 0, batch_size=23, tiny_clients=rule) for rule in ("keep_last_batch", "ref_drop_last"))
    assert torch.equal(trainer(data).train(kept).delta, trainer(data).train(dropped).delta)


def test_local_steps_count_the_short_last_batch(start: GlobalModel) -> None:
    assert local_steps(order(start), 23) == 6
    assert local_steps(order(start), 1) == 2
    assert local_steps(order(start, steps=4), 23) == 4


def test_local_steps_of_clients_that_drop_it(start: GlobalModel) -> None:
    dropping = order(start, tiny_clients="ref_drop_last")
    assert [local_steps(dropping, examples) for examples in (9, 10, 19, 23)] == [0, 2, 2, 4]
    assert [local_steps(dataclasses.replace(dropping, steps=3), examples) for examples in (9, 10)] == [0, 3]
    assert local_steps(order(start, tiny_clients="skip_client"), 9) == 2
