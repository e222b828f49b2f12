"""Curricula (spec baselines, property 20: the pool never shrinks, and is full at the end)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.policies import client_half
from clients.policies.curriculum import Curriculum, pool_size
from clients.policies.step_rule import Workbench
from fedmtl.balancing.passes import NO_PASSES, Passes

LOSSES = torch.tensor([3.0, 1.0, 2.0, 1.0, 5.0, 4.0])


def bench(losses: torch.Tensor = LOSSES) -> Workbench:
    return Workbench(None, None, None, torch.zeros(len(losses), 2), (), lambda: losses)


@pytest.mark.parametrize(("order", "first"), [("easy_first", [1, 3, 2]), ("hard_first", [4, 5, 0])])
def test_the_pool_holds_the_first_examples_by_loss(order: str, first: list[int]) -> None:
    assert Curriculum(0.5, order, 1, 0).start(bench()).tolist() == first


def test_the_random_control_draws_by_its_seed() -> None:
    pools = {tuple(Curriculum(0.5, "random", 1, seed).start(bench()).tolist()) for seed in range(8)}
    assert len(pools) > 1
    assert all(len(set(pool)) == 3 for pool in pools)


def test_a_full_pool_is_neither_scored_nor_sorted() -> None:
    work = Workbench(None, None, None, torch.zeros(6, 2), (), lambda: pytest.fail("scored"))
    assert Curriculum(1.0, "easy_first", 1, 0).start(work) is None
    assert Curriculum(0.2, "easy_first", 6, 0).start(work) is None


@given(n=st.integers(1, 200), shares=st.lists(st.floats(0.01, 1.0), min_size=2), batch=st.integers(1, 64))
def test_a_larger_share_is_no_smaller_pool(n: int, shares: list[float], batch: int) -> None:
    sizes = [pool_size(n, share, batch) for share in sorted(shares)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= min(n, batch)
    assert pool_size(n, 1.0, batch) == n


def test_the_trainer_scores_with_the_model_that_was_sent_and_trains_on_the_pool_alone(world) -> None:
    """What lies outside the pool may change at will."""
    trainer, base = world.trainer(), world.start()
    order = world.order("curriculum", base=base, terms={"share": 0.5}, constants={"order": "easy_first"})
    update = trainer.train(order)
    assert (update.examples, update.steps) == (40, 8)
    seen = {}

    class Spy(Curriculum):
        def start(self, bench: Workbench) -> torch.Tensor | None:
            seen["losses"], seen["pool"] = bench.losses(), super().start(bench)
            return seen["pool"]

    plan = client_half("curriculum").plan(order, {}, None)
    spy = Spy(plan.step_rule.share, plan.step_rule.order, plan.step_rule.least, plan.step_rule.seed)
    network = trainer._network((0, 1))
    trainer._vector.copy_(base.vector)
    spy.start(trainer._workbench(network, (0, 1), world.data.shards[0]))
    model = trainer._model
    outputs = model(world.data.train.features[:40])
    expected = sum(
        task.example_losses(output, target[:40])
        for task, output, target in zip(world.TASKS, outputs, world.data.train.targets, strict=True)
    )
    torch.testing.assert_close(seen["losses"], expected.detach())
    outside = sorted(set(range(40)) - set(seen["pool"].tolist()))
    assert seen["losses"][outside].min() >= seen["losses"][seen["pool"]].max()

    untouched = world.data.train.features[outside].clone()
    try:
        world.data.train.targets[1][outside] += 100.0  # harder still: they stay outside
        assert torch.equal(world.trainer().train(order).delta, update.delta)
    finally:
        world.data.train.targets[1][outside] -= 100.0
    assert torch.equal(world.data.train.features[outside], untouched)


def test_at_full_pacing_training_is_plain(world) -> None:
    order = world.order("curriculum", terms={"share": 1.0}, constants={"order": "easy_first"})
    assert torch.equal(world.trainer().train(order).delta, world.trainer().train(world.order()).delta)


def test_scoring_is_work(world) -> None:
    half = client_half("curriculum")
    easy = world.order("curriculum", terms={"share": 0.5}, constants={"order": "easy_first"})
    control = world.order("curriculum", terms={"share": 0.5}, constants={"order": "random"})
    full = world.order("curriculum", terms={"share": 1.0}, constants={"order": "easy_first"})
    assert half.passes(easy, 8, 40, tasks=2) == 4 * Passes(forward=1, heads=1)
    assert half.passes(control, 8, 40, tasks=2) == half.passes(full, 8, 40, tasks=2) == NO_PASSES
