"""FedNTK-trace with sketches: the server's Gram matrix, and weights from it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Arrival, GlobalModel, Update
from strategies.core.part import prepare, restore, states_of
from strategies.recipes.catalogue import build_strategy
from strategies.task_weights import FedNTKTrace, build_task_weights

RULES = ("nash-mtl", "fairgrad", "cagrad", "upgrad", "mgda")
SIZE = 4  # as many entries as the gradients here have: their sketches are themselves


def layout(tasks: int) -> ParameterLayout:
    return ParameterLayout(
        (),
        slice(0, SIZE),
        tuple(slice(SIZE + i, SIZE + i + 1) for i in range(tasks)),
        slice(SIZE + tasks, SIZE + tasks),
    )


def make(tasks: int, rule: str = "nash-mtl", **options) -> FedNTKTrace:
    part = FedNTKTrace(extra="sketch", sketch_size=SIZE, sketch_weighting=rule, w_max=1e9, **options)  # type: ignore[arg-type]
    prepare([part], GlobalModel(0, None, layout(tasks)), 3)  # type: ignore[arg-type]
    return part


def update(gradients: dict[int, Sequence[float]], client: int = 0, steps: int = 4) -> Update:
    sketches = torch.tensor([[*row, *[0.0] * (SIZE - len(row))] for row in gradients.values()])
    traces = tuple(sketches.square().sum(1).tolist())
    return Update(
        client,
        0,
        0,
        None,
        10,
        steps,
        tuple(gradients),
        task_traces=traces,
        task_sketches=sketches,  # type: ignore[arg-type]
    )


def step(part: FedNTKTrace, updates: Sequence[Update], weights: Sequence[float]) -> tuple[float, ...]:
    part.on_aggregated(updates, weights, layout(len(part.weights())))
    return part.weights()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("nash-mtl", (0.721110, 3.605551)),  # for two tasks NTKMTL's own
        ("mgda", (0.0, math.sqrt(26.0))),
    ],
)
def test_weights_are_the_rule_s_at_the_common_length(rule: str, expected: tuple[float, float]) -> None:
    """The gradients (3, 4) and (1, 0); MGDA's solver stops within 1e-3."""
    part = make(2, rule, coverage=False)
    assert step(part, [update({0: (3.0, 4.0), 1: (1.0, 0.0)})], [1.0]) == pytest.approx(expected, rel=1e-4, abs=1e-2)


@pytest.mark.parametrize("rule", RULES)
def test_weighted_gradients_are_as_long_as_unweighted_ones(rule: str) -> None:
    gradients = {0: (3.0, 1.0, 0.0), 1: (-1.0, 0.5, 0.2), 2: (0.0, 0.3, 2.0)}
    omega = step(make(3, rule, coverage=False), [update(gradients)], [1.0])
    squares = [math.fsum(x * x for x in row) for row in gradients.values()]
    weighted = math.fsum(weight**2 * square for weight, square in zip(omega, squares, strict=True))
    # Not exact where a weight of 0 was raised to the least that is allowed.
    assert weighted == pytest.approx(math.fsum(squares), rel=1e-6)
    assert omega != (1.0, 1.0, 1.0)


@pytest.mark.parametrize("rule", RULES)
def test_orthogonal_gradients_of_one_length_and_a_single_task_have_weights_of_one(rule: str) -> None:
    assert step(make(1, rule), [update({0: (0.3, 4.0)})], [0.2]) == pytest.approx((1.0,))
    alike = {0: (2.0, 0.0, 0.0), 1: (0.0, -2.0, 0.0), 2: (0.0, 0.0, 2.0)}
    assert step(make(3, rule), [update(alike)], [1.0]) == pytest.approx((1.0,) * 3, rel=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rows", [((1.0, 2.0), (-1.0, -2.0)), ((3e38, 3e38), (1e-38, 0.0))])
def test_gradients_that_cancel_or_differ_beyond_measure_have_finite_weights(rule: str, rows) -> None:
    omega = step(make(2, rule), [update(dict(enumerate(rows)))], [1.0])
    assert all(0.0 < weight < math.inf for weight in omega)


def test_sketches_are_pooled_with_weights_and_batches_and_averaged_over_versions() -> None:
    """Tasks that live on different clients meet in the Gram matrix; a job of one step probed one batch, not two."""
    part = make(2, smoothing=0.8)
    one, other = update({0: (1.0, 0.0)}), update({0: (0.0, 3.0)}, 1, steps=1)
    assert step(part, [one, other], [0.5, 0.25]) == (1.0, 1.0)
    step(part, [update({1: (2.0, 2.0)}, 2)], [0.7])
    step(part, [update({0: (5.0, 5.0)}, 0)], [0.1])
    pooled = torch.tensor([1.0 * 0.8, 3.0 * 0.2])
    first = (0.8 * 0.2 * pooled + 0.2 * 5.0) / (1 - 0.8**2)
    rows = torch.stack([first, torch.tensor([2.0, 2.0])]).double()
    assert part._sketch is not None
    assert torch.allclose(part._sketch.gram, rows @ rows.T)
    assert part.weights() != (1.0, 1.0)


def test_coverage_divides_as_it_does_without_sketches() -> None:
    covered, plain = make(2, "cagrad"), make(2, "cagrad", coverage=False)
    both, first = update({0: (1.0, 0.0), 1: (0.5, 2.0)}), update({0: (1.0, 0.1)}, 1)
    for part in (covered, plain):
        step(part, [both, first], [0.5, 0.5])
    expected = [weight / share for weight, share in zip(plain.weights(), covered.shares, strict=True)]
    assert covered.weights() == pytest.approx(expected)


@given(st.permutations(range(5)))
def test_the_order_of_arrivals_does_not_matter_to_the_bit(order: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    updates = [update({0: torch.randn(4, generator=generator).tolist(), 1: (1.0, 2.0)}, c) for c in range(5)]
    weights = torch.rand(5, generator=generator).tolist()
    one, other = make(2), make(2)
    step(one, updates, weights)
    step(other, [updates[i] for i in order], [weights[i] for i in order])
    assert one._sketch is not None
    assert other._sketch is not None
    assert torch.equal(one._sketch.gram, other._sketch.gram)
    assert one.weights() == other.weights()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_a_gradient_that_is_nothing_or_no_number_leaves_weights_finite_and_other_tasks_alone(rule, bad) -> None:
    part = make(3, rule, coverage=False)
    omega = step(part, [update({0: (bad, 0.0), 1: (1.0, 2.0), 2: (3.0, -1.0)})], [1.0])
    without = step(make(2, rule, coverage=False), [update({0: (1.0, 2.0), 1: (3.0, -1.0)})], [1.0])
    assert omega == ((1.0, *without) if bad == 0.0 else (1.0, 1.0, 1.0))  # one that was not seen is waited for


def test_bad_sketches_of_one_client_leave_what_others_sent() -> None:
    part, reference = make(2), make(2)
    good = update({0: (1.0, 2.0), 1: (0.0, 1.0)})
    step(part, [good, update({0: (math.nan, 0.0)}, 1)], [0.5, 0.5])
    step(reference, [good], [0.5])
    assert part._sketch is not None
    assert reference._sketch is not None
    assert torch.equal(part._sketch.gram, reference._sketch.gram)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (None, "lacks the sketches"),
        (torch.zeros(2, SIZE + 1), r"shape \(2, 5\), expected float32 of shape \(2, 4\)"),
        (torch.zeros(1, SIZE), r"shape \(1, 4\)"),
        (torch.zeros(2, SIZE, dtype=torch.float64), "float64"),
    ],
)
def test_an_update_without_the_sketches_that_were_asked_for_is_turned_down(toys, sent, message) -> None:
    options = {"extra": "sketch", "sketch_size": SIZE}
    strategy = toys.ready(build_strategy("fedbuff", {}, build_task_weights("fedntk-trace", options)))
    strategy.orders(strategy.begin([0], 0.0).decision.assignments)
    reaction = strategy.on_event(Arrival(1.0, toys.make_update(task_sketches=sent)))
    (rejection,) = reaction.rejections
    assert re.search(message, rejection.reason)
    assert strategy.waiting == 0


def test_a_state_goes_on_to_the_same_bits(toys) -> None:
    whole, cut = make(2), make(2)
    steps = [[update({0: (1.0, k), 1: (k - 2.0, 1.0)})] for k in range(5)]
    for updates in steps:
        step(whole, updates, [1.0])
    for updates in steps[:2]:
        step(cut, updates, [1.0])
    rest = make(2)
    restore({"weights": rest}, toys.through_json(states_of({"weights": cut})))
    for updates in steps[2:]:
        step(rest, updates, [1.0])
    assert rest.weights() == whole.weights()
    sketch = "weights._sketch"
    resumed, uncut = (states_of({"weights": part})[sketch]["average"] for part in (rest, whole))
    assert torch.equal(resumed, uncut)


def test_clients_are_told_the_size_and_one_seed_for_the_whole_run() -> None:
    part, same, other = (FedNTKTrace(extra="sketch") for _ in range(3))
    for one, seed in ((part, 1), (same, 1), (other, 2)):
        prepare([one], GlobalModel(0, None, layout(2)), seed)  # type: ignore[arg-type]
    assert part.balancing.options["sketch"] == 256
    assert part.balancing.options["sketch_seed"] == same.balancing.options["sketch_seed"]
    assert part.balancing.options["sketch_seed"] != other.balancing.options["sketch_seed"]
    assert "sketch" not in FedNTKTrace().balancing.options


def test_misfits_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"only the full probe takes; set balancing\.probe = 'full'"):
        FedNTKTrace(extra="sketch", probe="sr")
    with pytest.raises(ConfigError, match="models of their own, and gradients at different models"):
        build_strategy("dfedsam", {}, FedNTKTrace(extra="sketch"))
    assert build_strategy("dfedsam", {}, FedNTKTrace()).name == "dfedsam"
