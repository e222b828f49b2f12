"""FedNTK-trace's server: pooled traces, coverage, weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmtl.components import check_options, options_of
from fedmtl.errors import ConfigError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import GlobalModel, Update
from strategies.task_weights import BALANCING, TASK_WEIGHTS, FedNTKTrace, LocalBalancing, build_task_weights

TASKS = 3
LAYOUT = ParameterLayout((), slice(0, 2), tuple(slice(2 + i, 3 + i) for i in range(TASKS)), slice(5, 5))


def make(**options) -> FedNTKTrace:
    part = FedNTKTrace(**options)
    part.prepare(GlobalModel(0, None, LAYOUT), 0)  # type: ignore[arg-type]
    return part


def update(tasks: Sequence[int], traces: Sequence[float], steps: int = 4) -> Update:
    return Update(0, 0, 0, None, 10, steps, tuple(tasks), task_traces=tuple(traces))  # type: ignore[arg-type]


@st.composite
def buffers(draw: st.DrawFn) -> tuple[list[Update], list[float]]:
    updates = []
    for _ in range(draw(st.integers(1, 6))):
        tasks = draw(st.sets(st.integers(0, TASKS - 1), min_size=1))
        traces = [draw(st.floats(1e-6, 1e6)) for _ in tasks]
        updates.append(update(sorted(tasks), traces, draw(st.integers(1, 5))))
    return updates, [draw(st.floats(1e-3, 1.0)) for _ in updates]


def test_traces_are_pooled_with_weights_and_batches() -> None:
    """A job of one step probed one batch, the others two; only owners count."""
    part = make(smoothing=0.8)
    updates = [update((0, 1), (2.0, 8.0)), update((0,), (5.0,), steps=1), update((2,), (3.0,))]
    part.on_aggregated(updates, (0.5, 0.3, 0.2), LAYOUT)
    pooled = ((0.5 * 2 * 2.0 + 0.3 * 1 * 5.0) / (0.5 * 2 + 0.3 * 1), 8.0, 3.0)
    assert part.traces == pytest.approx(pooled)
    part.on_aggregated([update((0,), (10.0,))], (1.0,), LAYOUT)
    second = (0.8 * 0.2 * pooled[0] + 0.2 * 10.0) / (1 - 0.8**2)
    assert part.traces == pytest.approx((second, 8.0, 3.0))
    assert part.shares == pytest.approx((0.9 * (0.9 + 0.1 * 0.8) + 0.1, 0.9 * (0.9 + 0.1 * 0.5), 0.9 * 0.92))


def test_weights_are_those_of_the_formula() -> None:
    """The specified form takes the mean of the lambda (7), the default their geometric mean (4)."""
    q = (1.0, 0.9 + 0.1 * 0.25, 0.9 + 0.1 * 0.75)
    lam = (4.0, 1.0, 16.0)
    for norm, mean in (("none", 7.0), ("geometric", 4.0)):
        part = make(exponent=0.5, smoothing=0.0, eps=1e-300, omega_norm=norm)
        part.on_aggregated([update((0, 1), (4.0, 1.0)), update((0, 2), (4.0, 16.0))], (0.25, 0.75), LAYOUT)
        expected = [math.sqrt(mean / size) / share for size, share in zip(lam, q, strict=True)]
        assert part.weights() == pytest.approx(expected)


def test_a_task_without_a_gradient_does_not_count_in_the_geometric_mean() -> None:
    part, two = make(coverage=False), make(coverage=False, eps=1e-300)
    part.on_aggregated([update((0, 1, 2), (0.0, 1.0, 16.0))], (1.0,), LAYOUT)
    assert part.weights() == pytest.approx((50.0, 2.0, 0.5))
    two.on_aggregated([update((0, 1, 2), (4.0, 1.0, 16.0))], (1.0,), LAYOUT)
    assert math.prod(two.weights()) == pytest.approx(1.0)


@given(st.lists(buffers(), min_size=1, max_size=8), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
def test_weights_are_one_until_every_task_was_seen_and_then_within_the_clip(steps, exponent, coverage) -> None:
    part, seen = make(exponent=exponent, coverage=coverage), set()
    for updates, weights in steps:
        before = part.traces
        part.on_aggregated(updates, weights, LAYOUT)
        carried = {task for one in updates for task in one.tasks}
        seen |= carried
        for task in set(range(TASKS)) - carried:
            assert part.traces[task] == before[task] or math.isnan(before[task])
        if len(seen) < TASKS or (exponent == 0.0 and not coverage):
            assert part.weights() == (1.0,) * TASKS
        assert all(1 / 50 <= weight <= 50 for weight in part.weights())


@given(buffers(), st.randoms(use_true_random=False))
def test_the_order_of_arrivals_does_not_matter(buffer, random) -> None:
    """To the last bit, for sums are exact before they are rounded."""
    updates, weights = buffer
    one, other = make(), make()
    one.on_aggregated(updates, weights, LAYOUT)
    order = list(range(len(updates)))
    random.shuffle(order)
    other.on_aggregated([updates[k] for k in order], [weights[k] for k in order], LAYOUT)
    assert one.state_dict() == other.state_dict()


@given(st.lists(buffers(), min_size=1, max_size=6), st.floats(1e-3, 1e3))
def test_weights_do_not_depend_on_the_scale_of_the_losses_or_of_the_aggregation(steps, scale) -> None:
    one, other = make(eps=1e-300), make(eps=1e-300)
    for updates, weights in steps:
        one.on_aggregated(updates, weights, LAYOUT)
        bigger = [update(u.tasks, [scale * trace for trace in u.task_traces], u.steps) for u in updates]
        other.on_aggregated(bigger, [0.1 * weight for weight in weights], LAYOUT)
    assert other.weights() == pytest.approx(one.weights(), rel=1e-6)


def test_a_single_task_that_all_own_has_weight_one_to_the_bit() -> None:
    layout = ParameterLayout((), slice(0, 2), (slice(2, 3),), slice(3, 3))
    part = FedNTKTrace()
    part.prepare(GlobalModel(0, None, layout), 0)  # type: ignore[arg-type]
    for trace in (3.0, 1e-9, 7e5):
        part.on_aggregated([update((0,), (trace,)), update((0,), (0.3 * trace,))], (0.7, 0.1), layout)
        assert part.weights() == (1.0,)


@pytest.mark.parametrize("trace", [math.nan, math.inf, None])
def test_a_trace_that_is_no_number_or_missing_is_left_out(trace) -> None:
    part, reference = make(), make()
    good = update((0, 1, 2), (1.0, 2.0, 3.0))
    bad = update((0, 1, 2), () if trace is None else (trace, 2.0, 3.0))
    part.on_aggregated([good, bad], (0.5, 0.5), LAYOUT)
    reference.on_aggregated([good], (1.0,), LAYOUT)
    assert part.traces == pytest.approx(reference.traces)
    assert part.shares == reference.shares


@pytest.mark.parametrize("traces", [(0.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-2.0, 1.0, 1.0)])
def test_zero_and_negative_statistics_give_finite_weights_within_the_clip(traces) -> None:
    part = make()
    part.on_aggregated([update((0, 1, 2), traces)], (1.0,), LAYOUT)
    assert all(1 / 50 <= weight <= 50 for weight in part.weights())
    if not any(traces):
        assert part.weights() == (1.0, 1.0, 1.0)


def test_a_rare_task_is_raised_by_its_coverage_and_no_further_than_q_min() -> None:
    part, without = make(w_max=1e6), make(coverage=False)
    common = [update((0, 1), (1.0, 1.0)), update((0, 1), (1.0, 1.0))]
    for trial in (part, without):
        trial.on_aggregated([*common, update((2,), (1.0,))], (0.4, 0.4, 0.2), LAYOUT)
        for _ in range(100):
            trial.on_aggregated(common, (0.5, 0.5), LAYOUT)
    assert part.weights() == pytest.approx((1.0, 1.0, 20.0), rel=1e-3)
    assert without.weights() == (1.0, 1.0, 1.0)


def test_the_sum_of_the_weights_can_be_kept() -> None:
    part = make(omega_norm="sum_K", coverage=False)
    part.on_aggregated([update((0, 1, 2), (1.0, 4.0, 9.0))], (1.0,), LAYOUT)
    assert math.fsum(part.weights()) == pytest.approx(3.0)


@pytest.mark.slow
@given(st.lists(buffers(), min_size=2, max_size=8), st.integers(1, 7))
def test_a_state_goes_on_to_the_same_bits(toys, steps, cut: int) -> None:
    whole, first, second = make(), make(), make()
    for index, (updates, weights) in enumerate(steps):
        whole.on_aggregated(updates, weights, LAYOUT)
        (first if index < cut else second).on_aggregated(updates, weights, LAYOUT)
        if index + 1 == cut:
            second.load_state_dict(toys.through_json(first.state_dict()))
    last = first if cut >= len(steps) else second
    assert last.state_dict() == whole.state_dict()
    assert last.weights() == whole.weights()


def test_clients_are_told_to_measure_what_the_options_say() -> None:
    part = build_task_weights("fedntk-trace", {"probe": "sr", "batches": 3, "clip": 0.5})
    assert part.balancing.name == "equal-probed"
    assert part.balancing.options["probe"] == "sr"
    assert part.balancing.options["batches"] == 3
    assert part.balancing.options["clip"] == 0.5


def test_what_the_client_could_not_do_is_refused_by_the_server() -> None:
    with pytest.raises(ConfigError, match=r"balancing\.batches to 2 or more"):
        FedNTKTrace(statistic="denoised", batches=1)
    with pytest.raises(ConfigError, match=r"'fedntk-trac' is unknown \(did you mean 'fedntk-trace'"):
        build_task_weights("fedntk-trac", {})
    assert isinstance(build_task_weights("ntkmtl-sr", {}), LocalBalancing)


@pytest.mark.parametrize("name", TASK_WEIGHTS)
def test_options_have_a_meaning_and_a_checked_range(name: str) -> None:
    assert all(option.param.help for option in options_of(BALANCING[name]))
    assert set(check_options(BALANCING[name], {}, "balancing", name)) == {o.name for o in options_of(BALANCING[name])}


def test_an_option_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"balancing\.smoothing"):
        check_options(BALANCING["fedntk-trace"], {"smoothing": 1.0}, "balancing", "fedntk-trace")
