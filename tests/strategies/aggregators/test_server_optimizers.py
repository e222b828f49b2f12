from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.server_optimizers import SGD, Adam, AMSGrad, ServerOptimizer, Yogi
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.core.part import prepare
from strategies.weightings import Uniform

OPTIMIZERS: dict[str, Callable[[], ServerOptimizer]] = {
    "sgd": lambda: SGD(0.7, 0.9),
    "adam": Adam,
    "adam, corrected": lambda: Adam(0.1, v0=0.0, bias_correction=True),
    "adam, looking ahead": lambda: Adam(0.1, 0.6, 0.9, look_ahead=True),
    "yogi": Yogi,
    "amsgrad": lambda: AMSGrad(0.1, v0=0.0, bias_correction=True),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def ready(optimizer: ServerOptimizer, toys) -> ServerOptimizer:
    optimizer.prepare(toys.start_model(), 0)
    return optimizer


def moved(optimizer: ServerOptimizer, *changes: float, rate: float | None = None) -> list[float]:
    """How far each of several steps moves a vector of zeros whose every entry is proposed to change so."""
    steps = []
    for change in changes:
        current, proposed = torch.zeros(8), torch.full((8,), change)
        optimizer.step(current, proposed, rate)
        assert len(set(proposed.tolist())) == 1
        assert not current.any()
        steps.append(proposed[0].item())
    return steps


def test_sgd_keeps_a_velocity(toys) -> None:
    assert moved(ready(SGD(0.5, 0.9), toys), 1.0, 2.0, 0.0) == pytest.approx([0.5, 1.45, 1.305])


def test_sgd_without_momentum_takes_the_proposed_model_bit_for_bit(toys) -> None:
    optimizer = ready(SGD(), toys)
    current = torch.linspace(-1.0, 1.0, 8)
    for scale in (1e-3, 1.0, 1e3):
        wanted = current + scale * torch.sin(current)
        proposed = wanted.clone()
        optimizer.step(current, proposed)
        assert proposed.equal(wanted)


def test_adam_starts_at_eps_squared_without_correction(toys) -> None:
    eps, m, v = 1e-3, 0.1 * 0.5, 0.99e-6 + 0.01 * 0.25
    assert moved(ready(Adam(0.01), toys), 0.5) == pytest.approx([0.01 * m / (v**0.5 + eps)])


def test_adam_with_correction_first_moves_by_its_rate(toys) -> None:
    assert moved(ready(Adam(0.1, eps=1e-8, v0=0.0, bias_correction=True), toys), 0.5) == pytest.approx([0.1])


def test_looking_ahead_adds_the_change_once_more(toys) -> None:
    m = 0.4 * 2.0
    wanted = 0.1 * (0.6 * m + 0.4 * 2.0) / ((0.1 * 4.0) ** 0.5 + 1e-3)
    assert moved(ready(Adam(0.1, 0.6, 0.9, 1e-3, v0=0.0, look_ahead=True), toys), 2.0) == pytest.approx([wanted])


def test_yogi_forgets_a_large_change_by_a_constant_amount(toys) -> None:
    optimizer = ready(Yogi(v0=0.0), toys)
    moved(optimizer, 2.0, 1.0)
    assert optimizer.state_dict()["v"][0].item() == pytest.approx(0.01 * 4.0 + 0.01 * 1.0)
    optimizer = ready(Yogi(v0=4.0), toys)
    moved(optimizer, 1.0)
    assert optimizer.state_dict()["v"][0].item() == pytest.approx(4.0 - 0.01)


def test_amsgrad_never_lets_a_step_grow_again(toys) -> None:
    optimizer = ready(AMSGrad(0.1, v0=0.0), toys)
    largest = torch.zeros(8)
    for change in (1.0, 3.0, 0.1, 0.0, 0.5):
        moved(optimizer, change)
        v_hat = optimizer.state_dict()["v_hat"]
        assert (v_hat >= largest).all()
        assert (v_hat >= optimizer.state_dict()["v"]).all()
        largest = v_hat


def test_amsgrads_step_is_divided_by_the_largest_second_moment(toys) -> None:
    """A change of 3, then one of 0: v falls to 0.99 x 0.09, what stands under the root stays 0.09."""
    optimizer = ready(AMSGrad(0.1, 0.5, 0.99, 1e-3, v0=0.0), toys)
    wanted = [0.1 * 1.5 / (0.09**0.5 + 1e-3), 0.1 * 0.75 / (0.09**0.5 + 1e-3)]
    assert moved(optimizer, 3.0, 0.0) == pytest.approx(wanted)
    corrected = ready(AMSGrad(0.1, 0.5, 0.99, 1e-3, v0=0.0, bias_correction=True), toys)
    share = 1 - 0.99**2
    wanted = [0.1 * 3.0 / (3.0 + 1e-3), 0.1 * (0.75 / 0.75) / ((0.09 / share) ** 0.5 + 1e-3)]
    assert moved(corrected, 3.0, 0.0) == pytest.approx(wanted)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
@given(changes=st.lists(st.sampled_from([0.0, 1e-12, 1e-3, 1.0, -1.0, 1e4]), min_size=1, max_size=12))
def test_the_second_moment_is_never_negative(toys, name: str, changes: list[float]) -> None:
    optimizer = ready(OPTIMIZERS[name](), toys)
    for change in changes:
        (step,) = moved(optimizer, change)
        state = optimizer.state_dict()
        assert state["v"].min() >= 0.0
        assert state["v"].isfinite().all()
        assert math.isfinite(step)


@every_optimizer
def test_no_change_from_the_start_is_no_step(toys, name: str) -> None:
    assert moved(ready(OPTIMIZERS[name](), toys), 0.0, 0.0) == [0.0, 0.0]


@every_optimizer
def test_a_rate_of_a_step_takes_the_place_of_its_own(toys, name: str) -> None:
    single = moved(ready(OPTIMIZERS[name](), toys), 0.5, rate=0.1)
    assert moved(ready(OPTIMIZERS[name](), toys), 0.5, rate=0.3) == pytest.approx([3 * single[0]])


@every_optimizer
def test_an_optimizer_goes_on_from_its_state(toys, name: str) -> None:
    whole = moved(ready(OPTIMIZERS[name](), toys), 1.0, -0.5, 0.25, 0.0)
    first, second = ready(OPTIMIZERS[name](), toys), ready(OPTIMIZERS[name](), toys)
    head = moved(first, 1.0, -0.5)
    second.load_state_dict(toys.through_json(first.state_dict()))
    moved(first, 9.0)  # what is loaded is a copy
    assert head + moved(second, 0.25, 0.0) == whole


@every_optimizer
def test_a_saved_state_does_not_change_afterwards(toys, name: str) -> None:
    optimizer = ready(OPTIMIZERS[name](), toys)
    moved(optimizer, 1.0)
    state = optimizer.state_dict()
    before = toys.through_json(state)
    moved(optimizer, 2.0)
    assert all(torch.equal(state[key], value) for key, value in before.items() if torch.is_tensor(value))


def step_of(toys, deltas: list[float]) -> Step:
    updates = [toys.make_update(client, delta=torch.full((9,), delta)) for client, delta in enumerate(deltas)]
    return Step(toys.start_model(), updates, {}, "full", frozenset(), Ledger())


def test_the_buffers_are_averaged_and_never_optimised(toys) -> None:
    aggregator = Optimized(GradientAggregator(Uniform()), Adam(0.01, v0=0.0, bias_correction=True))
    prepare([aggregator], toys.start_model(), 0)
    step = step_of(toys, [1.0, 3.0])
    vector, weights = aggregator.aggregate(step)
    change = vector - step.model.vector
    assert weights == (0.5, 0.5)
    # 1e-5: changes of 0.01 are differences of entries of up to 1 in single precision, and eps is 1e-3 of the root.
    assert change[:8].tolist() == pytest.approx([0.01 * 2.0 / 2.001] * 8, abs=1e-5)
    assert change[8].item() == pytest.approx(2.0)
    assert step.model.vector.equal(toys.start_model().vector)


def test_a_rate_may_depend_on_the_updates(toys) -> None:
    aggregator = Optimized(GradientAggregator(Uniform()), SGD(), rate=lambda updates, version: 0.5 * len(updates))
    prepare([aggregator], toys.start_model(), 0)
    step = step_of(toys, [1.0])
    assert (aggregator.aggregate(step)[0] - step.model.vector)[:8].tolist() == pytest.approx([0.5] * 8)
