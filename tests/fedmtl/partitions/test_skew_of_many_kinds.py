"""What the partitions with equal shares, of so many classes, and over several tasks do to the data."""

import numpy as np
import pytest
import torch

from fedmtl.data import Examples, Pool
from fedmtl.data.digits import digits
from fedmtl.errors import ConfigError, DataError
from fedmtl.partitions.dirichlet_equal import _draw, dirichlet_equal
from fedmtl.partitions.dirichlet_joint import dirichlet_joint
from fedmtl.partitions.extended_dirichlet import extended_dirichlet
from fedmtl.partitions.pathological_equal import pathological_equal
from fedmtl.partitions.statistics import class_counts, effective_classes, total_variation
from fedmtl.tasks import Task


@pytest.fixture(scope="module")
def pool() -> Pool:
    return digits(0, 100)


def counts(pool: Pool, parts: list[np.ndarray], task: str = "digit") -> np.ndarray:
    """Examples of each class that each client has, [clients, classes]."""
    client = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return class_counts(pool.labels[task][np.concatenate(parts)], client, len(parts))


def of_classes(*sizes: int) -> Pool:
    labels = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    part = Examples(torch.zeros(len(labels), 1), (labels,))
    return Pool((Task("kind", "classification", outputs=len(sizes)),), part, part)


@pytest.mark.parametrize("partition", [dirichlet_equal, pathological_equal])
def test_equal_shares_differ_by_one_example_at_most(pool, partition):
    assert set(counts(pool, partition(pool, 30, 0)).sum(axis=1)) == {43, 44}


def test_a_mixture_of_ones_own_is_narrow_or_that_of_all(pool):
    def classes(alpha: float) -> np.ndarray:
        return effective_classes(counts(pool, dirichlet_equal(pool, 20, 0, alpha=alpha)))

    assert np.median(classes(1e-3)) < 1.5
    assert np.median(classes(1e-3)) < np.median(classes(3.0)) < np.median(classes(1e6))
    # 65 independent draws of ten classes have 9.3 effective ones on average.
    assert classes(1e6).mean() > 9.0


def test_a_class_that_is_used_up_is_drawn_no_more_and_the_others_take_its_place():
    rng = np.random.default_rng(0)
    drawn = np.stack([_draw(10, np.array([4, 100, 100]), np.array([0.8, 0.1, 0.1]), rng) for _ in range(200)])
    assert (drawn.sum(axis=1) == 10).all()
    # Eight of ten draws on average want the first class, which has four; the others are equally likely.
    assert drawn[:, 0].mean() > 3.95
    assert abs(drawn[:, 1].mean() - drawn[:, 2].mean()) < 0.5
    assert _draw(5, np.array([0, 3, 2]), np.array([1.0, 0.0, 0.0]), rng).tolist() == [0, 3, 2]


@pytest.mark.parametrize("classes", [1, 3, 10])
def test_extended_dirichlet_clients_have_exactly_so_many_classes(pool, classes):
    table = counts(pool, extended_dirichlet(pool, 20, 0, classes_per_client=classes, alpha=0.1))
    assert set((table > 0).sum(axis=1)) == {classes}
    owners = (table > 0).sum(axis=0)
    assert owners.sum() == 20 * classes
    # The digits are almost equally frequent, and so are their owners.
    assert np.ptp(owners) <= 1


def test_extended_dirichlet_gives_frequent_classes_more_owners_and_a_rare_one_its_one():
    table = counts_of(extended_dirichlet(rare := of_classes(900, 96, 4), 30, 0, classes_per_client=1, alpha=1.0), rare)
    assert (table > 0).sum(axis=0).tolist() == [26, 3, 1]


def counts_of(parts: list[np.ndarray], pool: Pool) -> np.ndarray:
    return counts(pool, parts, "kind")


def test_extended_dirichlet_says_which_numbers_do_not_go_together(pool):
    with pytest.raises(DataError, match=r"data\.classes_per_client = 11: the data have 10 classes only"):
        extended_dirichlet(pool, 20, 0, classes_per_client=11)
    with pytest.raises(DataError, match=r"data\.clients = 3 with .* = 2 have room for 6, the data have 10 classes"):
        extended_dirichlet(pool, 3, 0)
    with pytest.raises(DataError, match=r"20 clients need at least 20 examples of a class that has 4; use fewer"):
        extended_dirichlet(of_classes(90, 4), 20, 0)
    with pytest.raises(DataError, match=r"at least 30 training examples per client would take 600, the data have 94"):
        extended_dirichlet(of_classes(90, 4), 20, 0, classes_per_client=1, min_examples=30)


def test_pathological_equal_clients_have_two_shards_of_the_sorted_examples():
    fitting = of_classes(60, 60, 60, 60)
    table = counts_of(pathological_equal(fitting, 12, 1), fitting)
    # Shards of ten, of which no class's end is inside one.
    assert set(np.unique(table)) <= {0, 10, 20}
    assert set(table.sum(axis=1)) == {20}
    assert (table > 0).sum(axis=1).max() == 2


def test_pathological_equal_says_which_numbers_do_not_go_together(pool):
    with pytest.raises(DataError, match=r"data\.classes_per_client = 11: the data have 10 classes only"):
        pathological_equal(pool, 20, 0, classes_per_client=11)
    with pytest.raises(DataError, match=r"clients = 500 with .* = 3 are 1500 shards, the data have 1297 examples"):
        pathological_equal(pool, 500, 0, classes_per_client=3)


def test_tasks_are_skewed_together(pool):
    """A client of few combinations of digit and asymmetry is skewed in asymmetry beyond what its digits explain."""
    digit, side = pool.labels["digit"], pool.values["asymmetry"]
    parts = dirichlet_joint(pool, 20, 0, by_tasks=("digit", "asymmetry"), alpha=0.05, bins=2)
    assert total_variation(counts(pool, parts)).mean() > 0.5
    upper = np.array([(side[part] > np.median(side)).mean() for part in parts])
    of_digit = np.array([(side[digit == label] > np.median(side)).mean() for label in range(10)])
    expected = np.array([of_digit[digit[part]].mean() for part in parts])
    # By the digits alone a client's share of the upper half would be the expected one.
    assert np.abs(upper - expected).mean() > 0.15
    alone = dirichlet_joint(pool, 20, 0, by_tasks=("digit",), alpha=0.05)
    upper, expected = (
        np.array([values[part].mean() for part in alone]) for values in (side > np.median(side), of_digit[digit])
    )
    assert np.abs(upper - expected).mean() < 0.1


def test_tasks_to_skew_by_are_those_of_the_data_and_each_is_named_once(pool):
    with pytest.raises(ConfigError, match=r"data\.by_tasks: 'digits' is not a task .*did you mean 'digit'"):
        dirichlet_joint(pool, 5, 0, by_tasks=("digits",))
    with pytest.raises(ConfigError, match=r"data\.by_tasks: 'ink' is given twice"):
        dirichlet_joint(pool, 5, 0, by_tasks=("ink", "digit", "ink"))
