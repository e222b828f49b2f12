"""What each partition does to the data, by its definition."""

import warnings

import numpy as np
import pytest
import torch

from fedmtl.data import Examples, Pool
from fedmtl.data.digits import digits
from fedmtl.data.ownership import task_groups
from fedmtl.errors import ConfigError, DataError
from fedmtl.partitions.classes import class_partition
from fedmtl.partitions.cutting import UNUSED, at_least, cut_by_shares, parts_of
from fedmtl.partitions.dirichlet import dirichlet
from fedmtl.partitions.dual_dirichlet import dual_dirichlet
from fedmtl.partitions.feature_skew import feature_skew
from fedmtl.partitions.iid import iid
from fedmtl.partitions.natural import natural
from fedmtl.partitions.pathological import pathological
from fedmtl.partitions.quantity import quantity
from fedmtl.partitions.task_disjoint import task_disjoint
from fedmtl.randomness import derive_seed
from fedmtl.tasks import Task


@pytest.fixture(scope="module")
def pool() -> Pool:
    return digits(0, 100)


def counts(pool: Pool, parts: list[np.ndarray], task: str = "digit") -> np.ndarray:
    """Examples of each class that each client has, [clients, classes]."""
    labels = pool.labels[task]
    return np.stack([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])


def sizes(parts: list[np.ndarray]) -> np.ndarray:
    return np.array([len(part) for part in parts])


def in_memory(labels: np.ndarray):
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"label": labels, "position": np.arange(len(labels))})


def test_iid_shards_differ_by_one_example_at_most(pool):
    assert set(sizes(iid(pool, 100, 0))) == {12, 13}


def test_iid_shards_follow_the_distribution_of_all(pool):
    table = counts(pool, iid(pool, 10, 0))
    expected = counts(pool, [np.arange(1297)]) / 10
    # A shard of 130 has a standard deviation of 3.4 examples per class around 13; five of them bound 100 draws.
    assert np.abs(table - expected).max() < 5 * 3.4


@pytest.mark.parametrize("seed", range(20))
def test_the_main_job_has_no_empty_shard(pool, seed):
    parts = dirichlet(pool, 100, seed, alpha=0.3)
    assert sizes(parts).min() >= 1
    assert sizes(parts).sum() == 1297


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_dirichlet_deals_as_many_of_each_class_as_the_partitioner_of_flower_datasets(pool, alpha):
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    theirs = partitioners.DirichletPartitioner(
        10, "label", alpha, min_partition_size=0, self_balancing=False, seed=derive_seed(5, "dirichlet")
    )
    theirs.dataset = in_memory(pool.labels["digit"])
    table = np.stack([np.bincount(theirs.load_partition(k)["label"][:], minlength=10) for k in range(10)])
    assert table.sum(axis=1).min() > 0  # nobody is filled up, so the tables must be equal
    assert np.array_equal(counts(pool, dirichlet(pool, 10, 5, alpha=alpha)), table)


def test_dirichlet_skew_grows_as_alpha_falls(pool):
    def classes_held(alpha: float) -> float:
        return float((counts(pool, dirichlet(pool, 20, 0, alpha=alpha)) > 0).sum(axis=1).mean())

    assert classes_held(0.05) < classes_held(0.5) < classes_held(100.0) == 10.0


def test_filling_up_moves_examples_of_the_largest_clients_only():
    owner = np.repeat([0, 1, 2, 3], [10, 6, 1, 0])
    filled = at_least(owner, 4, 3, np.random.default_rng(0))
    assert np.bincount(filled, minlength=4).tolist() == [6, 5, 3, 3]
    moved = np.flatnonzero(filled != owner)
    assert set(owner[moved]) == {0, 1}
    assert np.bincount(owner[moved]).tolist() == [4, 1]


def test_filling_up_changes_nothing_where_nothing_is_missing_and_leaves_unused_examples_alone():
    owner = np.array([0, 0, 1, 1, UNUSED])
    rng = np.random.default_rng(0)
    assert at_least(owner, 2, 2, rng) is owner
    filled = at_least(np.array([0, 0, 0, UNUSED]), 2, 1, rng)
    assert filled[3] == UNUSED
    assert sorted(np.bincount(filled[:3])) == [1, 2]


def test_cuts_by_shares_are_runs_of_truncated_cumulative_length():
    assert cut_by_shares(7, np.array([0.5, 0.0, 0.25, 0.25])).tolist() == [0, 0, 0, 2, 2, 3, 3]
    assert [part.tolist() for part in parts_of(np.array([1, UNUSED, 0, 1]), 3)] == [[2], [0, 3], []]


@pytest.mark.parametrize("assignment", ["first-deterministic", "random", "deterministic"])
def test_pathological_clients_have_exactly_their_classes(pool, assignment):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = counts(pool, pathological(pool, 40, 0, classes_per_client=3, assignment=assignment))
    assert set((table > 0).sum(axis=1)) == {3}


def test_pathological_asks_for_the_impossible_in_vain(pool):
    with pytest.raises(DataError, match=r"classes_per_client = 11: the data have 10 classes"):
        pathological(pool, 5, 0, classes_per_client=11)
    with pytest.raises(DataError, match="a class has fewer examples than clients that need it"):
        pathological(pool, 1000, 0, classes_per_client=9)


@pytest.mark.parametrize(("law", "name"), [("linear", "LinearPartitioner"), ("square", "SquarePartitioner")])
def test_quantity_laws_are_those_of_flower_datasets(pool, law, name):
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    theirs = getattr(partitioners, name)(10)
    theirs.dataset = in_memory(pool.labels["digit"])
    expected = np.array([len(theirs.load_partition(k)) for k in range(10)])
    # Theirs truncates each size and gives the last client the rest, ours truncates the running sum.
    assert np.abs(np.sort(sizes(quantity(pool, 10, 0, law=law))) - np.sort(expected)).max() <= 10
    assert np.abs(np.sort(sizes(quantity(pool, 10, 0, law=law))) - np.sort(expected))[:-1].max() <= 1


@pytest.mark.parametrize("law", ["lognormal", "dirichlet"])
def test_quantity_spread_makes_sizes_more_or_less_alike(pool, law):
    narrow, wide = (0.1, 2.0) if law == "lognormal" else (100.0, 0.2)
    assert sizes(quantity(pool, 50, 0, law=law, spread=narrow)).std() < 10
    assert sizes(quantity(pool, 50, 0, law=law, spread=wide)).std() > 20


@pytest.mark.parametrize("law", ["linear", "square", "exponential"])
def test_quantity_serves_a_hundred_clients_where_flower_datasets_refuses(pool, law):
    assert sizes(quantity(pool, 100, 0, law=law)).min() == 1


def with_users(users: list[int]) -> Pool:
    part = Examples(torch.zeros(len(users), 1), (torch.zeros(len(users)),))
    return Pool((Task("height", "regression"),), part, part, natural=np.array(users))


def test_natural_clients_are_the_users_in_order():
    parts = natural(with_users([7, 3, 7, 5, 3]), 3, 0)
    assert [part.tolist() for part in parts] == [[1, 4], [3], [0, 2]]


def test_natural_clients_stand_for_several_users_or_share_all_of_them():
    users = with_users(list(range(10)) * 2)
    assert sizes(natural(users, 3, 0, ids_per_client=2)).tolist() == [4, 4, 4]
    assert sizes(natural(users, 3, 0, ids_per_client=0)).tolist() == [8, 6, 6]
    with pytest.raises(DataError, match="come from 10 users, 12 are needed"):
        natural(users, 6, 0, ids_per_client=2)


def test_natural_needs_a_source_that_knows_the_users(pool):
    with pytest.raises(ConfigError, match="does not know whose each example is"):
        natural(pool, 3, 0)


def test_dual_dirichlet_shares_sum_to_the_class_sizes(pool):
    table = counts(pool, dual_dirichlet(pool, 12, 42))
    assert np.array_equal(table.sum(axis=0), np.bincount(pool.labels["digit"]))


def test_dual_dirichlet_is_far_more_skewed_than_a_dirichlet_by_class(pool):
    dual = np.mean([(counts(pool, dual_dirichlet(pool, 20, s)) > 0).sum(1).mean() for s in range(5)])
    plain = np.mean([(counts(pool, dirichlet(pool, 20, s, alpha=0.5)) > 0).sum(1).mean() for s in range(5)])
    assert dual < 0.6 * plain


def test_dual_dirichlet_says_when_its_draws_underflow(pool):
    with pytest.raises(DataError, match=r"data\.alpha1 or data\.alpha2 is so small"):
        dual_dirichlet(pool, 2, 0, alpha2=1e-6)


@pytest.mark.parametrize(
    ("clients", "low", "high"), [(1, 10, 10), (2, 7, 8), (5, 5, 6), (7, 4, 5), (10, 3, 5), (20, 3, 5)]
)
def test_class_partition_gives_each_client_the_authors_number_of_classes(pool, clients, low, high):
    table = counts(pool, class_partition(pool, clients, 42))
    held = (table > 0).sum(axis=1)
    assert low <= held.min()
    assert held.max() <= high
    assert table.sum(axis=0).min() > 0


def test_class_partition_refuses_what_cannot_cover_the_classes(pool):
    with pytest.raises(DataError, match=r"data\.clients = 2 with at most 3 classes"):
        class_partition(pool, 2, 0, min_classes=1, max_classes=3)
    with pytest.raises(DataError, match=r"min_classes = 4 is larger than data\.max_classes = 3"):
        class_partition(pool, 20, 0, min_classes=4, max_classes=3)
    with pytest.raises(DataError, match=r"max_classes = 11: the data have 10"):
        class_partition(pool, 20, 0, max_classes=11)


def test_task_disjoint_clients_are_skewed_in_their_own_task_alone(pool):
    parts = task_disjoint(pool, 40, 0, alpha=0.02)
    groups = task_groups(40, 4, 0)
    ink = pool.train.targets[2].numpy()
    spread = np.array([ink[part].std() for part in parts if len(part) >= 10])
    own = np.array([groups[k] == 2 for k, part in enumerate(parts) if len(part) >= 10])
    assert spread[own].mean() < 0.8 * spread[~own].mean()
    group_sizes = np.bincount(groups, weights=sizes(parts))
    # Ten clients each, so the groups share the 1297 examples evenly, up to one per client.
    assert np.ptp(group_sizes) <= 10


def test_feature_skew_sorts_by_the_first_principal_component():
    rng = np.random.default_rng(0)
    features = torch.from_numpy((rng.standard_normal((2000, 3)) * [1.0, 9.0, 2.0] + 5).astype(np.float32))
    part = Examples(features, (features[:, 0],))
    pool = Pool((Task("height", "regression"),), part, part)

    def explained(skew: float) -> float:
        means = np.array([features[p, 1].mean() for p in feature_skew(pool, 20, 0, skew=skew)])
        return float(means.var() / features[:, 1].numpy().var())

    assert explained(1.0) > 0.95
    assert 0.6 < explained(0.9) < 0.9
    # With 100 examples each, independent shards explain 1/100 of the variance.
    assert explained(0.0) < 0.03


def test_feature_skew_takes_constant_features_but_no_symbols():
    constant = Examples(torch.ones(20, 4), (torch.zeros(20),))
    assert set(sizes(feature_skew(Pool((Task("h", "regression"),), constant, constant), 4, 0))) == {5}
    symbols = Examples(torch.ones(20, 4, dtype=torch.int64), (torch.zeros(20),))
    with pytest.raises(ConfigError, match="needs numeric features"):
        feature_skew(Pool((Task("h", "regression"),), symbols, symbols), 4, 0)
