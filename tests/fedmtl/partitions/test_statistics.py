"""Statistics of a partition against figures worked out by hand, and against SciPy's."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from fedmtl.config import parse_config
from fedmtl.data.build import build_data
from fedmtl.partitions.statistics import (
    Undefined,
    class_counts,
    effective_classes,
    gini,
    jensen_shannon,
    statistics_of,
    total_variation,
    wasserstein,
)

COUNTS = np.array([[6, 2, 0, 0], [1, 1, 1, 1], [0, 0, 7, 5]])


def test_total_variation_is_the_share_of_examples_to_exchange():
    # The pool is 7, 3, 8, 6 of 24; the first client is 18, 6, 0, 0 of 24: it has 11 + 3 too many.
    assert total_variation(COUNTS)[0] == pytest.approx(14 / 24)
    assert total_variation(np.array([[5, 0], [5, 0]])).tolist() == [0, 0]


def test_divergence_and_entropy_are_those_of_scipy():
    pool = COUNTS.sum(axis=0) / COUNTS.sum()
    for row, divergence, classes in zip(COUNTS, jensen_shannon(COUNTS), effective_classes(COUNTS), strict=True):
        assert divergence == pytest.approx(jensenshannon(row / row.sum(), pool, base=2) ** 2)
        assert classes == pytest.approx(np.exp(stats.entropy(row / row.sum())))
    assert effective_classes(COUNTS)[1] == pytest.approx(4)
    # Clients without a class in common, of equal size: m is 3/4 and 1/4, so JS = H(m) - 1/2 bits.
    apart = 0.75 * np.log2(4 / 3) + 0.25 * 2 - 0.5
    assert jensen_shannon(np.array([[3, 0], [0, 3]])) == pytest.approx([apart, apart])


def test_gini_is_half_the_mean_difference_over_the_mean():
    # Of 1, 2 and 6 the nine differences add up to 2 (1 + 5 + 4) = 20, and the mean is 3.
    assert gini(np.array([2, 6, 1])) == pytest.approx(20 / (2 * 9 * 3))
    assert gini(np.array([7, 7, 7, 7])) == 0
    assert gini(np.array([0, 0, 0, 12])) == pytest.approx(3 / 4)


def test_the_wasserstein_distance_is_scipys_in_deviations_of_the_pool():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=40), rng.integers(0, 3, 60)]) * 7 + 100  # with many equal ones
    client = np.concatenate([np.arange(5), rng.integers(0, 5, 95)])
    found = wasserstein(values, client, 5)
    expected = [stats.wasserstein_distance(values[client == k], values) / values.std() for k in range(5)]
    assert found == pytest.approx(expected)


def test_a_distance_by_hand():
    # 0 and 2 on one client, 1 and 1 on the other: each moves half of its values by 1; the deviation is 1 / 2^(1/2).
    found = wasserstein(np.array([0.0, 1.0, 2.0, 1.0]), np.array([0, 1, 0, 1]), 2)
    assert found == pytest.approx([0.5 * 2**0.5, 0.5 * 2**0.5])


def test_classes_are_counted_that_occur():
    found = class_counts(np.array([9, 4, 9, 9]), np.array([0, 1, 1, 2]), 3)
    assert found.tolist() == [[0, 1], [1, 1], [0, 1]]


def data_of(*settings: str):
    return build_data(parse_config({}, ["data.clients=12", *settings]))


def test_each_task_has_the_statistics_that_mean_something_for_it():
    found = {one.task.name: one for one in statistics_of(data_of("data.alpha=0.1"))}
    assert list(found) == ["digit", "parity", "ink", "asymmetry"]
    assert found["digit"].pool_classes == pytest.approx(10, abs=0.1)
    assert set(found["digit"].reasons) == {"wasserstein"}
    assert found["ink"].reasons == dict.fromkeys(
        ("total_variation", "jensen_shannon", "effective_classes", "pool_classes"), "a regression has no classes"
    )
    assert len({one.gini for one in found.values()}) == 1


def test_a_task_is_measured_on_the_clients_that_own_it():
    data = data_of("tasks.ownership=disjoint", "data.partition=iid")
    for index, one in enumerate(statistics_of(data)):
        assert one.clients.tolist() == np.flatnonzero(data.owners[:, index]).tolist()
        assert one.sizes.tolist() == data.shards.sizes[one.clients].tolist()
    digit = statistics_of(data)[0]
    labels = np.concatenate([data.train.targets[0][data.shards[k]] for k in digit.clients.tolist()])
    assert digit.pool_classes == pytest.approx(np.exp(stats.entropy(np.bincount(labels))))


def test_one_client_and_a_constant_target_have_no_distance():
    alone = statistics_of(build_data(parse_config({}, ["data.clients=1"])))
    assert isinstance(alone[0].total_variation, Undefined)
    assert isinstance(alone[2].wasserstein, Undefined)
    assert isinstance(alone[0].gini, Undefined)
    assert isinstance(wasserstein(np.ones(4), np.array([0, 0, 1, 1]), 2), Undefined)
