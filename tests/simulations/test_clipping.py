"""Bounds of gradients as a configuration sets them: of the model, of each part, and of the balancer's own."""

from __future__ import annotations

import pytest
import torch

from fedmtl.errors import ConfigError
from fedmtl.protocol import TrainSettings
from fedmtl.toy import toy_model
from simulations import Experiment
from simulations.runner import simulated_fleet
from strategies.core.loop import Loop
from strategies.recipes.catalogue import build_strategy
from strategies.task_weights import build_task_weights

TRACE, PART = "balancing.name=fedntk-trace", "training.clip_by=part"


@pytest.mark.parametrize("name", ["equal", "ntkmtl-sr", "mgda", "fedntk-trace", "equal-probed"])
def test_a_balancers_own_bound_of_the_shared_gradient_is_refused_beside_that_of_the_parts(name: str) -> None:
    given = [f"balancing.name={name}", "balancing.clip=0.5"]
    Experiment.load(None, given)
    Experiment.load(None, [*given, PART, "training.clip=0"])  # bounded once
    with pytest.raises(
        ConfigError,
        match=r"balancing.clip = 0.5 with training.clip_by = 'part': training.clip = 4 bounds the shared gradient by "
        r"itself .* set balancing.clip = 0, or training.clip_by = 'model'",
    ):
        Experiment.load(None, [*given, PART])


@pytest.mark.parametrize("name", ["fedntk-trace", "equal-probed"])
def test_a_balancers_own_bound_of_heads_is_refused_beside_it_too(name: str) -> None:
    with pytest.raises(ConfigError, match=r"balancing.head_clip = 2 .*bounds each head's gradient by itself"):
        Experiment.load(None, [f"balancing.name={name}", "balancing.head_clip=2.0", PART])


def test_a_strategy_that_is_used_from_python_refuses_it_when_it_learns_how_clients_train() -> None:
    strategy = build_strategy("fedbuff", {}, build_task_weights("cagrad", {"clip": 1.0}))
    strategy.initialise(toy_model([0.0]), TrainSettings())
    other = build_strategy("fedbuff", {}, build_task_weights("cagrad", {"clip": 1.0}))
    with pytest.raises(ConfigError, match=r"balancing.clip = 1 with training.clip_by = 'part'"):
        other.initialise(toy_model([0.0]), TrainSettings(clip_by="part"))


@pytest.mark.parametrize(
    ("overrides", "bounds"),
    [
        ([], (1.0, 1.0)),
        ([PART], (0.0, 0.0)),
        (["balancing.clip=0.0"], (0.0, 1.0)),
        (["balancing.clip=0.0", "balancing.head_clip=0.0", PART], (0.0, 0.0)),
        (["balancing.clip=0.3", "balancing.extra=sketch"], (0.3, 1.0)),
        (["balancing.extra=sketch", PART], (0.0, 0.0)),
    ],
)
def test_unset_bounds_of_fedntk_trace_are_1_and_give_way_to_those_of_the_parts(
    overrides: list[str], bounds: tuple[float, float]
) -> None:
    strategy = Experiment.load(None, [TRACE, *overrides]).new_strategy()
    (order, *_) = strategy.orders(strategy.begin(range(3), 0.0).decision.assignments)
    assert (order.balancing.options["clip"], order.balancing.options["head_clip"]) == bounds
    assert order.settings.clip_by == ("part" if PART in overrides else "model")


def test_bounds_that_became_unset_are_the_experiment_that_they_were() -> None:
    assert digest(TRACE) == digest(TRACE, "balancing.clip=1.0", "balancing.head_clip=1.0")
    assert digest(TRACE) != digest(TRACE, "balancing.clip=0.0")
    assert digest(TRACE, PART) == digest(TRACE, PART, "balancing.clip=0.0", "balancing.head_clip=0.0")
    assert digest(PART) != digest()


def digest(*overrides: str) -> str:
    return Experiment.load(None, list(overrides)).digest


def vector(*overrides: str) -> torch.Tensor:
    small = ["data.clients=4", "strategy.name=fedbuff", "strategy.buffer_size=2", "training.epochs=1"]
    experiment = Experiment.load(None, [*small, TRACE, *overrides])
    loop = Loop(experiment.new_strategy(), simulated_fleet(experiment))
    try:
        loop.run(lambda loop: "done" if loop.strategy.model.version >= 3 else None)
    finally:
        loop.fleet.close()
    return loop.strategy.model.vector


def test_fedntk_trace_with_bounds_of_1_for_all_parts_is_what_it_is_by_default() -> None:
    """Its own bounds keep its steps below the square root of 5, so that the joint bound of 4 never binds."""
    usual, parts = vector(), vector(PART, "training.clip=1.0")
    jointly = vector("balancing.clip=0.0", "balancing.head_clip=0.0")
    # Factors are rounded to float32 at another place, over a dozen steps.
    torch.testing.assert_close(parts, usual, rtol=1e-3, atol=1e-5)
    assert (jointly - usual).norm() > 0.01 * (usual - usual.mean()).norm()
