"""FSMGDA's server: the shortest common direction."""

from __future__ import annotations

import torch

from fedmtl.protocol import GlobalModel
from strategies.aggregators import GradientAggregator
from strategies.aggregators.min_norm import MinNormAggregator, task_change
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.weightings import DataSize, Uniform


def make_step(toys, updates) -> Step:
    return Step(GlobalModel(0, toys.start_model().vector, toys.LAYOUT), updates, {}, "all", frozenset(), Ledger())


def updates_of(toys):
    """Owners of both tasks, with the second's change apart, and owners of one."""
    layout = toys.LAYOUT
    both = [toys.make_update(client) for client in range(2)]
    for update in both:
        vector = torch.zeros(layout.size)
        vector[layout.shared] = torch.randn(4, generator=torch.Generator().manual_seed(update.client))
        update.vectors = {"task 1": vector}
    return [*both, toys.make_update(2, tasks=(0,)), toys.make_update(3, tasks=(1,))]


def test_the_backbone_moves_along_the_least_point_of_the_tasks_mean_changes(toys) -> None:
    updates = updates_of(toys)
    step, shared = make_step(toys, updates), toys.LAYOUT.shared
    vector, weights = MinNormAggregator(DataSize(), server_rate=0.5).aggregate(step)
    first = [updates[k].delta - updates[k].vectors["task 1"] for k in (0, 1)] + [updates[2].delta]
    second = [updates[k].vectors["task 1"] for k in (0, 1)] + [updates[3].delta]
    D1 = torch.tensor([10, 11, 12]) / 33 @ torch.stack(first)[:, shared]
    D2 = torch.tensor([10, 11, 13]) / 34 @ torch.stack(second)[:, shared]
    lam = ((D2 - D1).dot(D2) / (D1 - D2).square().sum()).clamp(0, 1)
    torch.testing.assert_close(
        vector[shared] - step.model.vector[shared], 0.5 * (lam * D1 + (1 - lam) * D2), rtol=1e-4, atol=1e-6
    )
    plain, plain_weights = GradientAggregator(DataSize(), server_rate=0.5).aggregate(step)
    assert torch.equal(vector[shared.stop :], plain[shared.stop :])
    assert weights == plain_weights


def test_a_task_without_an_owner_does_not_pull_and_its_head_stays(toys) -> None:
    updates = [toys.make_update(client, tasks=(1,)) for client in range(3)]
    step = make_step(toys, updates)
    vector, _ = MinNormAggregator(Uniform()).aggregate(step)
    plain, _ = GradientAggregator(Uniform()).aggregate(step)
    torch.testing.assert_close(vector, plain)
    head = toys.LAYOUT.heads[0]
    assert torch.equal(vector[head], step.model.vector[head])


def test_a_change_that_was_not_sent_is_none(toys) -> None:
    update = toys.make_update(0)
    assert torch.equal(task_change(update, 0), update.delta)
    assert task_change(update, 1).count_nonzero() == 0
