"""FedCMOO's client: the tasks' gradients at the model that was sent, in rank r."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from clients.policies import client_half
from fedmtl.balancing.passes import Passes
from fedmtl.models import build_model
from fedmtl.protocol import TrainOrder, Update
from fedmtl.randomness import derive_seed


def order(world, rank: int, client: int = 0, **fields) -> TrainOrder:
    return world.order("compressed-jacobian", client, constants={"rank": rank}, **fields)


def gradients(world, what: TrainOrder) -> Tensor:
    """By plain autograd, on the batch that the order's seed draws, shape [tasks, P]."""
    model = build_model(world.name, world.options, world.data.input_shape, world.TASKS, 0)
    layout = what.base.layout
    layout.bind(model, what.base.vector.clone())
    shard = world.data.shards[what.client]
    generator = torch.Generator().manual_seed(derive_seed(what.seed, "jacobian"))
    examples = world.data.train.take(shard[torch.randperm(len(shard), generator=generator)[:10]])
    outputs = model(examples.features)
    rows = []
    for task, output, target in zip(world.TASKS, outputs, examples.targets, strict=True):
        parts = torch.autograd.grad(
            task.mean_loss(output, target), list(model.backbone.parameters()), retain_graph=True
        )
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(rows)


def received(update: Update, what: TrainOrder, rank: int) -> Tensor:
    """What the server makes of it."""
    shared = what.base.layout.shared
    basis = torch.stack([update.vectors[f"basis {j}"][shared] for j in range(rank)])
    rows = [[update.terms.get(f"coefficient {task} {j}", 0.0) for j in range(rank)] for task in update.tasks]
    return torch.tensor(rows) @ basis


@pytest.mark.parametrize("client", [0, 1, 2])
@pytest.mark.parametrize("rank", [2, 3])
def test_with_as_many_vectors_as_tasks_nothing_is_lost(world, client: int, rank: int) -> None:
    what = order(world, rank, client)
    update = world.trainer().train(what)
    torch.testing.assert_close(received(update, what, rank), gradients(world, what), rtol=1e-4, atol=1e-6)


def test_one_vector_is_the_best_there_is(world) -> None:
    what = order(world, 1)
    update = world.trainer().train(what)
    G = gradients(world, what)
    U, S, V = torch.linalg.svd(G, full_matrices=False)
    best = S[0] * U[:, :1] @ V[:1]
    torch.testing.assert_close(received(update, what, 1), best, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_training_is_plain_to_the_bit(world, rank: int) -> None:
    what = order(world, rank)
    assert torch.equal(world.trainer().train(what).delta, world.trainer().train(world.order()).delta)


def test_the_basis_and_the_coefficients_go_up(world) -> None:
    what = order(world, 2)
    half, shared = client_half(what.policy), what.base.layout.shared
    assert half.extra_bytes_up(what) == 2 * 4 * (shared.stop - shared.start)
    assert half.task_bytes_up(what, 3) == 2 * 4 * 3
    assert half.gradient_calls(what, 7) == 7
    assert half.passes(what, 7, 40, tasks=3) == Passes(forward=1, backward=3, heads=3)
