"""The client's half of FedQS: types, learning rate, momentum, feedback, and what is kept between jobs."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clients.policies import CLIENT_HALVES, client_half
from clients.policies.base import ClassAccuracy, ClientState, Plan
from clients.policies.fedqs import FedQSHalf, accuracy_spread
from fedmtl.client_types import type_name
from fedmtl.errors import UserError
from fedmtl.parameters import ParameterLayout
from fedmtl.protocol import Balancing, GlobalModel, TrainOrder, TrainSettings, Update

LAYOUT = ParameterLayout((), slice(0, 3), (slice(3, 4),), slice(4, 5))
CONSTANT = {
    "a": 0.002,
    "m0": 0.1,
    "k": 2.0,
    "momentum_cap": 0.4,
    "adapt_momentum": 1.0,
    "frequency_cap": 9.0,
    "rate_min": 0.001,
    "rate_max": 0.2,
    "spread": 30.0,
    "small_class": 10.0,
    "similarity": "angle",
    "since_last": False,
}
EVEN = ClassAccuracy((10, 10), (20, 20))
UNEVEN = ClassAccuracy((4, 10), (20, 20))  # a spread of 30 points


def order(vectors: dict | None = None, momentum: float = 0.0, base: float = 0.0, **terms: float) -> TrainOrder:
    model = GlobalModel(3, torch.full((LAYOUT.size,), base), LAYOUT)
    settings = TrainSettings(learning_rate=0.1, momentum=momentum)
    constants = {name: terms.pop(name, value) for name, value in CONSTANT.items()}
    return TrainOrder(0, 1, model, None, settings, None, Balancing(), "fedqs", terms, vectors or {}, 0, constants)


def plan(
    f: float,
    f_bar: float,
    theta: float,
    theta_bar: float,
    accuracy: ClassAccuracy = EVEN,
    eta: float = 0.1,
    **terms: float,
) -> Plan:
    asked = order(frequency=f, frequency_mean=f_bar, similarity_mean=theta_bar, **terms)
    return FedQSHalf().plan(asked, {"similarity": theta, "learning_rate": eta}, lambda: accuracy)


class Said(NamedTuple):
    client_type: str
    feedback: bool
    similarity: float | None


def said(made: Plan) -> Said:
    """What the client says of itself to the server."""
    assert made.terms.get("feedback", 1.0) == 1.0
    number, similarity = made.terms.get("client_type"), made.terms.get("similarity")
    return Said(type_name(number), "feedback" in made.terms, similarity)


def update(delta: torch.Tensor | None = None, **fields: object) -> Update:
    return Update(0, 1, 3, torch.ones(LAYOUT.size) if delta is None else delta, 10, 2, **fields)


@pytest.mark.parametrize(
    ("f", "theta", "accuracy", "expected"),
    [
        (0.02, 70.0, EVEN, ("FBC", 0.1, 0.0, True)),
        (0.02, 60.0, UNEVEN, ("FUC", 0.099, 0.1, False)),
        (0.005, 60.0, UNEVEN, ("SUC", 0.104, 0.1, False)),
        (0.005, 70.0, EVEN, ("SBC-1", 0.104, 0.1, False)),
        (0.005, 70.0, UNEVEN, ("SBC-2", 0.104, 0.0, True)),
        (0.01, 60.0, EVEN, ("SUC", 0.102, 0.1, False)),  # equality of f counts as slow, of theta as unbiased
    ],
)
def test_the_five_types(f: float, theta: float, accuracy: ClassAccuracy, expected: tuple) -> None:
    made = plan(f, 0.01, theta, 60.0, accuracy)
    assert said(made) == (expected[0], expected[3], theta)
    assert made.settings.learning_rate == pytest.approx(expected[1])
    assert made.settings.momentum == pytest.approx(expected[2])


def test_only_a_slow_and_biased_client_is_probed() -> None:
    def never() -> ClassAccuracy:
        raise AssertionError("probed")

    for f, theta in ((0.02, 70.0), (0.02, 50.0), (0.005, 50.0)):
        asked = order(frequency=f, frequency_mean=0.01, similarity_mean=60.0)
        assert said(FedQSHalf().plan(asked, {"similarity": theta}, never)).client_type


@pytest.mark.parametrize(("G", "momentum"), [(1.0, 0.1), (0.9, 0.322222), (0.8, 0.5), (0.3, 0.5), (0.0, 0.5)])
def test_golden_momentum_of_unbiased_clients(G: float, momentum: float) -> None:
    for f in (0.02, 0.005):
        assert plan(f, 0.01, 60.0 * G, 60.0).settings.momentum == pytest.approx(momentum, abs=1e-6)


def test_golden_learning_rates() -> None:
    assert plan(0.02, 0.01, 50.0, 60.0).settings.learning_rate == pytest.approx(0.1 - 0.002 * 0.5)
    assert plan(0.0005, 0.01, 50.0, 60.0).settings.learning_rate == pytest.approx(0.1 + 0.018)  # F is capped at 9
    assert plan(0.02, 0.01, 70.0, 60.0, eta=0.1234).settings.learning_rate == 0.1234  # FBC
    assert plan(0.02, 0.01, 50.0, 60.0, eta=0.0011).settings.learning_rate == 0.001
    assert plan(0.005, 0.01, 50.0, 60.0, eta=0.1999).settings.learning_rate == 0.2


def test_a_rate_that_does_not_change_is_not_brought_into_bounds() -> None:
    assert plan(0.02, 0.01, 70.0, 60.0, eta=0.5).settings.learning_rate == 0.5
    assert plan(0.005, 0.01, 50.0, 60.0, eta=0.5, a=0.0).settings.learning_rate == 0.5


positive = st.floats(1e-6, 1.0)
angle = st.floats(0.0, 180.0)


@given(
    f=positive,
    f_bar=positive,
    theta=angle,
    theta_bar=st.floats(1e-3, 180.0),
    eta=st.floats(0.001, 0.2),
    uneven=st.booleans(),
)
def test_typing_is_total_and_exclusive_and_stays_in_bounds(
    f: float, f_bar: float, theta: float, theta_bar: float, eta: float, uneven: bool
) -> None:
    made = plan(f, f_bar, theta, theta_bar, UNEVEN if uneven else EVEN, eta)
    client_type, feedback, _ = said(made)
    fast, biased = f > f_bar, theta > theta_bar
    slow_type = ("SBC-2" if uneven else "SBC-1") if biased else "SUC"
    assert client_type == (("FBC" if biased else "FUC") if fast else slow_type)
    assert feedback == (client_type in ("FBC", "SBC-2"))
    assert 0.001 <= made.settings.learning_rate <= 0.2
    m = made.settings.momentum
    assert m == 0.0 if feedback else 0.1 <= m <= 0.5 + 1e-12


@pytest.mark.parametrize(
    "known",
    [
        {"frequency": 0.0, "frequency_mean": 0.01, "similarity_mean": 60.0},
        {"frequency": 0.01, "similarity_mean": 60.0},
        {"frequency": 0.01, "frequency_mean": 0.0, "similarity_mean": 60.0},
        {"frequency": 0.01, "frequency_mean": 0.01},
        {"frequency": 0.01, "frequency_mean": 0.01, "similarity_mean": 0.0},
    ],
)
def test_who_is_not_known_well_enough_stays_untyped(known: dict) -> None:
    made = FedQSHalf().plan(order(momentum=0.3, **known), {"similarity": 50.0, "learning_rate": 0.07}, lambda: EVEN)
    assert said(made) == ("", False, 50.0)
    assert (made.settings.learning_rate, made.settings.momentum) == (0.07, 0.3)


def test_the_first_job_is_untyped_and_plain() -> None:
    half, state = FedQSHalf(), ClientState()
    asked = order({"global_step": torch.ones(LAYOUT.size)}, frequency=0.0, frequency_mean=0.01, similarity_mean=60.0)
    made = half.plan(asked, half.observe(asked, state), lambda: EVEN)
    assert made == Plan(asked.settings)


def test_momentum_can_be_switched_off() -> None:
    for theta in (50.0, 70.0):
        asked = order(momentum=0.3, frequency=0.02, frequency_mean=0.01, similarity_mean=60.0, adapt_momentum=0.0)
        assert FedQSHalf().plan(asked, {"similarity": theta}, lambda: EVEN).settings.momentum == 0.3


def test_a_client_measures_its_last_update_once_and_lets_go_of_it() -> None:
    half = FedQSHalf()
    state: ClientState = {}
    delta = torch.tensor([1.0, 0.0, 0.0, 0.0, 9.0])
    half.conclude(order(), update(delta, learning_rate=0.05), state)
    asked = order({"global_step": torch.tensor([0.0, 1.0, 0.0, 0.0, 9.0])})
    # The last entry is a buffer and is left out: with it the vectors would be nearly parallel.
    assert half.observe(asked, state) == {"learning_rate": 0.05, "similarity": pytest.approx(90.0)}
    assert set(state) == {"learning_rate"}
    assert half.observe(asked, state) == {"learning_rate": 0.05}


@pytest.mark.parametrize("global_step", [None, torch.zeros(LAYOUT.size), torch.full((LAYOUT.size,), math.nan)])
def test_without_a_usable_global_step_there_is_no_similarity(global_step: torch.Tensor | None) -> None:
    half, state = FedQSHalf(), ClientState()
    half.conclude(order(), update(), state)
    asked = order({} if global_step is None else {"global_step": global_step})
    assert "similarity" not in half.observe(asked, state)


def test_a_zero_or_failed_update_gives_no_similarity() -> None:
    half = FedQSHalf()
    asked = order({"global_step": torch.ones(LAYOUT.size)})
    for made in (update(torch.zeros(LAYOUT.size)), update(failure="the loss is nan")):
        state: ClientState = {}
        half.conclude(order(), made, state)
        assert "similarity" not in half.observe(asked, state)


def test_opposite_and_identical_vectors_are_measured() -> None:
    half = FedQSHalf()
    step = torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(1))
    for sign, theta in ((1.0, 0.0), (-1.0, 180.0)):
        state: ClientState = {}
        half.conclude(order(), update(sign * step), state)
        seen = half.observe(order({"global_step": step}), state)
        assert seen["similarity"] == pytest.approx(theta, abs=0.1)  # float32 cannot tell 0.06 degrees from none


def test_a_client_can_form_the_global_step_from_the_last_model_it_was_sent() -> None:
    half, state = FedQSHalf(), ClientState()
    first, second = order(base=1.0, since_last=1.0), order(base=3.0, since_last=1.0)
    half.observe(first, state)
    half.conclude(first, update(torch.tensor([-1.0, -1.0, -1.0, -1.0, 5.0])), state)
    assert torch.equal(state["received"], first.base.vector)
    assert half.observe(second, state)["similarity"] == pytest.approx(180.0)
    assert "received" not in state


def test_the_spread_counts_small_classes_half() -> None:
    assert accuracy_spread(ClassAccuracy((15, 5), (20, 10)), 10.0) == pytest.approx(25.0)
    assert accuracy_spread(ClassAccuracy((15, 9), (20, 9)), 10.0) == pytest.approx(25.0)
    assert accuracy_spread(ClassAccuracy((), ()), 10.0) == 0.0
    assert accuracy_spread(ClassAccuracy((3,), (9,)), 10.0) == 0.0


def test_every_policy_has_its_half_and_an_unknown_one_is_refused() -> None:
    assert set(CLIENT_HALVES) >= {"plain", "fedqs"}
    with pytest.raises(UserError, match=r"'fedqs2'.*knows plain, fedqs"):
        client_half("fedqs2")


def test_the_plain_half_trains_as_told() -> None:
    asked = order()
    plain = client_half("plain")
    state: ClientState = {}
    assert plain.plan(asked, plain.observe(asked, state), lambda: EVEN) == Plan(asked.settings)
    plain.conclude(asked, update(), state)
    assert state == {}
