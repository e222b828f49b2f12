"""The statistics of a server step, against figures that were worked out by hand."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.protocol import Aggregation, Update
from fedmtl.records.convergence import ConvergenceWatch, Statistics, loss_variance, step_statistics
from fedmtl.records.schemas import CONVERGENCE
from fedmtl.toy import toy_model, toy_update
from tools.convergence_picture import LOSSES, statistics

GEOMETRY = CONVERGENCE.names[:7]


def geometry(updates: list[Update], before: list[float], after: list[float]) -> Statistics:
    found = step_statistics(toy_model(before), toy_model(after, version=1), updates, [1.0] * len(updates), None)
    return {name: found[name] for name in GEOMETRY}


def test_every_column_but_the_loss_has_a_statistic() -> None:
    found = step_statistics(toy_model([1.0]), toy_model([2.0]), [toy_update(0, [1.0])], [1.0], [0])
    assert [*found] == CONVERGENCE.names[:-1]


def test_a_step_of_three_updates_by_two_clients() -> None:
    # All are 5 long and their mean is (0, 1, 0); the two of client 0 are no pair. The last entry is a statistic of
    # batch norm, which is no movement.
    updates = [
        toy_update(0, [3.0, 4.0, 0.0, 1e3], job=0, terms={"client_type": TYPE_NUMBERS["FBC"]}),
        toy_update(1, [-3.0, 4.0, 0.0, 2e3]),
        toy_update(0, [0.0, -5.0, 0.0, 3e3], job=1, terms={"client_type": TYPE_NUMBERS["SBC-1"]}),
    ]
    before, after = toy_model([0.0, 0.0, 10.0, 7.0], buffers=1), toy_model([0.0, 2.0, 10.0, 9e3], version=1, buffers=1)
    assert step_statistics(before, after, updates, [0.5, -0.25, 0.25], [0]) == pytest.approx(
        {
            "step_norm": 2.0,
            "update_norm": 5.0,
            "update_spread": math.sqrt(25 - 1),
            "dissimilarity": math.sqrt(25 / 1),
            "step_cosine": (0.8 + 0.8 - 1.0) / 3,
            "pair_cosine": (7 / 25 - 20 / 25) / 2,
            "drift": 5 / 10,
            "share_fast": 0.75,
            "share_FBC": 0.5,
            "share_FUC": 0.0,
            "share_SUC": 0.0,
            "share_SBC-1": 0.25,
            "share_SBC-2": 0.0,
        },
        rel=1e-7,  # sums are of float32
    )


def test_the_norm_is_a_mean_of_lengths_and_drift_a_root_mean_square_in_lengths_of_the_model() -> None:
    found = geometry([toy_update(0, [1.0, 0.0]), toy_update(1, [0.0, 7.0])], [6.0, 8.0], [6.5, 11.5])
    assert found == pytest.approx(
        {
            "step_norm": math.sqrt(12.5),
            "update_norm": (1 + 7) / 2,
            "update_spread": math.sqrt(25 - 12.5),
            "dissimilarity": math.sqrt(25 / 12.5),
            "step_cosine": (1 / math.sqrt(50) + 7 / math.sqrt(50)) / 2,
            "pair_cosine": 0.0,
            "drift": 5 / 10,
        },
        rel=1e-7,
        abs=1e-7,
    )


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_client_alone_has_nobody_to_be_unlike(jobs: int) -> None:
    found = geometry([toy_update(4, [3.0, 4.0], job=job) for job in range(jobs)], [0.0, 10.0], [3.0, 14.0])
    assert {name for name, value in found.items() if value is None} == {"update_spread", "dissimilarity", "pair_cosine"}
    assert found["step_cosine"] == pytest.approx(1.0, rel=1e-7)


def test_updates_that_cancel_are_unlike_without_measure() -> None:
    # In float32 their sum is 7e-9.
    found = geometry([toy_update(client, [part]) for client, part in enumerate((0.1, 0.2, -0.3))], [1.0], [1.0])
    assert found["dissimilarity"] is None
    assert found["update_spread"] == pytest.approx(math.sqrt(0.14 / 3), rel=1e-6)
    assert found["step_norm"] == 0.0
    assert found["step_cosine"] is None
    assert found["pair_cosine"] == pytest.approx(-1 / 3, rel=1e-7)


def test_equal_updates_have_no_spread() -> None:
    found = geometry([toy_update(client, [0.1, 0.7]) for client in range(3)], [1.0, 0.0], [1.1, 0.7])
    assert found["update_spread"] == pytest.approx(0.0, abs=1e-7)  # the rounding of their mean
    assert found["dissimilarity"] == pytest.approx(1.0, rel=1e-7)
    assert found["pair_cosine"] == pytest.approx(1.0, rel=1e-7)


def test_an_update_of_nothing_has_no_direction_and_counts_in_the_lengths() -> None:
    updates = [toy_update(0, [0.0, 0.0]), toy_update(1, [0.0, 2.0]), toy_update(2, [2.0, 0.0])]
    found = geometry(updates, [0.0, 0.0], [0.0, 1.0])
    assert found["update_norm"] == pytest.approx(4 / 3)
    assert found["step_cosine"] == 0.5
    assert found["pair_cosine"] == pytest.approx(0.0, abs=1e-7)
    assert found["drift"] is None  # of a model of length 0
    still = geometry([toy_update(0), toy_update(1)], [3.0, 4.0], [3.0, 5.0])
    assert still == dict.fromkeys(GEOMETRY) | {"step_norm": 1.0, "update_norm": 0.0, "update_spread": 0.0, "drift": 0.0}


def test_a_step_without_updates_has_a_length_alone() -> None:
    assert geometry([], [0.0, 0.0], [3.0, 4.0]) == dict.fromkeys(GEOMETRY) | {"step_norm": 5.0}


def test_shares_have_no_meaning_without_weight_speeds_or_types() -> None:
    typed = [toy_update(0, terms={"client_type": TYPE_NUMBERS["FUC"]}), toy_update(1)]
    models = toy_model([1.0, 1.0]), toy_model([1.0, 1.0])
    shares = CONVERGENCE.names[7:-1]
    found = step_statistics(*models, typed, [0.0, 0.0], [0])
    assert {found[name] for name in shares} == {None}
    found = step_statistics(*models, [toy_update(0), toy_update(1)], [0.5, 1.5], [1])
    assert [found[name] for name in shares] == [0.75, None, None, None, None, None]
    found = step_statistics(*models, typed, [0.5, 1.5], None)
    assert [found[name] for name in shares] == [None, 0.0, 0.25, 0.0, 0.0, 0.0]


def test_long_vectors_are_multiplied_in_blocks_to_the_same_figures() -> None:
    generator = torch.Generator().manual_seed(0)
    size, clients = 2 * (1 << 16) + 3, [0, 1, 2, 1]
    deltas = torch.randn(len(clients), size, generator=generator)
    before, after = torch.randn(2, size, generator=generator)
    updates = [toy_update(client, deltas[place], job=place) for place, client in enumerate(clients)]
    found = step_statistics(toy_model(before), toy_model(after), updates, [1.0] * 4, None)
    d, step = deltas.double().numpy(), (after.double() - before.double()).numpy()
    mean, lengths = d.mean(0), np.linalg.norm(d, axis=1)

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (2, 3)]
    expected = {
        "step_norm": np.linalg.norm(step),
        "update_norm": lengths.mean(),
        "update_spread": math.sqrt((np.linalg.norm(d - mean, axis=1) ** 2).mean()),
        "dissimilarity": math.sqrt((lengths**2).mean()) / np.linalg.norm(mean),
        "step_cosine": np.mean([cosine(row, step) for row in d]),
        "pair_cosine": np.mean([cosine(d[one], d[other]) for one, other in pairs]),
        "drift": math.sqrt((lengths**2).mean()) / np.linalg.norm(before.double().numpy()),
    }
    # Angles near 0 keep the rounding of float32 as it is.
    assert {name: found[name] for name in GEOMETRY} == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_updates_that_are_almost_alike_have_the_spread_that_they_have() -> None:
    # A difference of squares of float32 would be off by 3e-4.
    shifts = [[3e-5, 0.0], [-3e-5, 0.0], [0.0, 3e-5], [0.0, -3e-5]]
    updates = [toy_update(client, [1.0 + x, 1.0 + y]) for client, (x, y) in enumerate(shifts)]
    found = geometry(updates, [1.0, 0.0], [2.0, 1.0])
    assert found["update_spread"] == pytest.approx(3e-5, rel=1e-2)  # 1 + 3e-5 is rounded to 1e-7


def test_several_updates_of_several_clients_make_pairs_of_different_clients_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    clients, deltas = [5, 5, 2, 5, 2, 7], torch.randn(6, 11, generator=generator)
    updates = [toy_update(client, deltas[place], job=place) for place, client in enumerate(clients)]
    found = step_statistics(toy_model(torch.ones(11)), toy_model(torch.zeros(11)), updates, [1.0] * 6, None)
    cosines = torch.nn.functional.cosine_similarity(deltas[:, None], deltas, dim=2)
    pairs = [cosines[i, j] for i in range(6) for j in range(i) if clients[i] != clients[j]]
    assert len(pairs) == 11
    assert found["pair_cosine"] == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)


def test_a_watch_measures_from_the_model_of_the_step_before() -> None:
    watch = ConvergenceWatch()
    with pytest.raises(RuntimeError, match="begin"):
        watch.measure(Aggregation(1, 0.0, "full", (), (), (), frozenset()), toy_model([1.0]))
    watch.begin(toy_model([1.0]))
    for version, (value, length) in enumerate([(3.0, 2.0), (2.5, 0.5)], start=1):
        step = Aggregation(version, 0.0, "full", (), (), (), frozenset())
        assert watch.measure(step, toy_model([value], version=version))["step_norm"] == length


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([[1.0, 2.0], [3.0, 2.0], [5.0, np.nan]], [8 / 3, 0.0]),
        ([[1.0, 2.0], [3.0, np.nan], [np.nan, np.nan]], [1.0, None]),
        ([[1.0, 2.0], [3.0, np.inf]], [1.0, None]),
        ([[1.0, 2.0], [np.nan, np.nan]], None),
    ],
)
def test_the_variance_of_a_loss_is_over_the_clients_that_have_it(
    losses: list[list[float]], expected: list[float | None] | None
) -> None:
    found = loss_variance(np.array(losses))
    assert found == (expected if expected is None else pytest.approx(expected))


def test_the_example_by_hand_of_the_page_is_what_a_run_would_record() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/convergence.md").read_text(encoding="utf-8")
    said = {name: float(value) for name, value in re.findall(r"^\| `(\w+)` \| .* \| ([\d.]+) \|$", page, re.MULTILINE)}
    assert said.pop("loss_variance") == pytest.approx((loss_variance(LOSSES) or [None])[0])
    assert len(said) == 8
    # Three digits are said; lengths are summed in single precision.
    assert {name: statistics()[name] for name in said} == pytest.approx(said, rel=1e-6)


def test_lengths_that_overflow_are_no_numbers_and_end_nothing() -> None:
    # Long enough for several blocks, whose products overflow to both signs.
    size = 3 << 16
    up = torch.full((size,), 1e20)
    mixed = torch.where(torch.arange(size) < size // 2, 1e20, -1e20)
    before, after = toy_model([0.0] * size), toy_model([1.0] * size, version=1)
    updates = [toy_update(0, up.tolist()), toy_update(1, mixed.tolist())]
    found = step_statistics(before, after, updates, [1.0, 1.0], None)
    assert found["step_norm"] == pytest.approx(math.sqrt(size))
    assert found["pair_cosine"] is None
