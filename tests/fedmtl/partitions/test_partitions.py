"""What every partition promises, whatever its method."""

import inspect
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.components import options_of
from fedmtl.data import Examples, Pool
from fedmtl.data.sources import SOURCES
from fedmtl.errors import ConfigError, DataError, UserError
from fedmtl.partitions import PARTITIONS
from fedmtl.tasks import Task

BY_CLASS = ("pathological", "dual-dirichlet", "class")
BY_BINS = ("dirichlet", "dirichlet-equal", "extended-dirichlet", "pathological-equal")
BY_LABEL = (*BY_BINS, *BY_CLASS)


def make_pool(examples: int, classes: int = 10, seed: int = 0, labels: np.ndarray | None = None) -> Pool:
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.integers(0, classes, examples) if labels is None else labels)
    features = torch.from_numpy(rng.standard_normal((examples, 5)).astype(np.float32))
    part = Examples(features, (features[:, 0].clone(), (labels % 2).float(), labels))
    tasks = (Task("height", "regression"), Task("odd", "binary"), Task("class", "classification", outputs=classes))
    return Pool(tasks, part, part, natural=np.arange(examples) % max(1, examples // 3))


@pytest.mark.parametrize("name", PARTITIONS)
@given(examples=st.integers(30, 400), clients=st.integers(3, 30), seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_no_example_is_given_twice_and_every_client_has_one_or_the_request_is_refused(name, examples, clients, seed):
    pool = make_pool(examples, seed=seed)
    try:
        parts = PARTITIONS[name](pool, clients, seed)
    except DataError as error:
        assert "data." in str(error)  # noqa: PT017
        return
    given_away = np.concatenate(parts)
    assert len(parts) == clients
    assert min(map(len, parts)) >= 1
    assert len(np.unique(given_away)) == len(given_away)
    assert given_away.min() >= 0
    assert given_away.max() < examples
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)
    if name not in ("natural", "pathological"):
        assert len(given_away) == examples


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_or_given_twice_whatever_the_options_and_however_rare_a_class(data):
    name = data.draw(st.sampled_from([*BY_BINS, "dirichlet-joint"]))
    examples, clients = data.draw(st.integers(20, 200)), data.draw(st.integers(1, 20))
    known = {option.name for option in options_of(PARTITIONS[name])}
    options = {
        "alpha": data.draw(st.sampled_from([1e-300, 1e-3, 0.1, 1.0, 1e6])),
        "bins": data.draw(st.integers(2, 6)),
        "classes_per_client": data.draw(st.integers(1, 6)),
        "min_examples": data.draw(st.integers(1, 4)),
        "by": data.draw(st.sampled_from(["", "odd", "height"])),
    }
    rare = np.minimum(np.random.default_rng(data.draw(st.integers(0, 99))).geometric(0.5, examples), 9)
    pool = make_pool(examples, labels=rare)
    try:
        parts = PARTITIONS[name](pool, clients, 3, **{key: options[key] for key in known & options.keys()})
    except DataError as error:
        assert len(re.findall(r"\d+", str(error))) >= 2  # noqa: PT017
        return
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(examples))
    assert len(parts) == clients
    assert min(map(len, parts)) >= (options["min_examples"] if "min_examples" in known else 1)


@pytest.mark.parametrize("name", PARTITIONS)
def test_the_seed_decides_the_partition(name):
    pool = make_pool(600)
    first, again, other = (PARTITIONS[name](pool, 20, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", PARTITIONS)
def test_more_clients_than_examples_are_refused_with_the_key_to_change(name):
    with pytest.raises(DataError, match=r"data\.clients = 50"):
        PARTITIONS[name](make_pool(40), 50, 0)


@pytest.mark.parametrize(
    "name", [name for name in PARTITIONS if "min_examples" in inspect.signature(PARTITIONS[name]).parameters]
)
def test_every_client_has_the_least_number_of_examples_that_was_asked_for(name):
    parts = PARTITIONS[name](make_pool(400), 40, 3, min_examples=8)
    assert min(map(len, parts)) >= 8
    assert sum(map(len, parts)) == 400
    with pytest.raises(DataError, match=r"at most 36 clients or a smaller data\.min_examples"):
        PARTITIONS[name](make_pool(400), 40, 3, min_examples=11)


@pytest.mark.parametrize("name", BY_LABEL)
def test_labels_come_from_the_first_classification_unless_another_task_is_named(name):
    pool = make_pool(600)
    default, named, odd = (PARTITIONS[name](pool, 30, 0, by=by, **OPTIONS.get(name, {})) for by in ("", "class", "odd"))
    assert all(np.array_equal(a, b) for a, b in zip(default, named, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(default, odd, strict=True))
    with pytest.raises(ConfigError, match=r"data\.by = 'clas' .*did you mean 'class'"):
        PARTITIONS[name](pool, 30, 0, by="clas")


# Bounds that fit two classes as well as ten.
OPTIONS = {"class": {"min_classes": 1, "max_classes": 2}}


@pytest.mark.parametrize("name", BY_LABEL)
def test_data_without_labels_cannot_be_partitioned_by_label(name):
    features = torch.zeros(50, 2)
    part = Examples(features, (torch.zeros(50),))
    with pytest.raises(UserError, match="no classification or binary task"):
        PARTITIONS[name](Pool((Task("height", "regression"),), part, part), 5, 0)


def test_the_split_does_not_change_with_the_tasks_that_are_learned():
    pool = make_pool(300)
    for name in (*BY_LABEL, "dirichlet-joint", "iid", "quantity", "feature-skew"):
        whole, chosen = PARTITIONS[name](pool, 5, 0), PARTITIONS[name](pool.choose(["height"]), 5, 0)
        assert all(np.array_equal(a, b) for a, b in zip(whole, chosen, strict=True)), name


def test_sources_and_partitions_have_no_option_name_in_common():
    of_sources = {option.name for build in SOURCES.values() for option in options_of(build)}
    of_partitions = {option.name for build in PARTITIONS.values() for option in options_of(build)}
    assert not of_sources & of_partitions


@pytest.mark.parametrize("build", [*SOURCES.values(), *PARTITIONS.values()])
def test_every_option_says_what_it_means(build):
    assert all(option.param.help for option in options_of(build))


@pytest.mark.parametrize("name", BY_BINS)
def test_the_bins_of_a_regression_may_stand_for_classes(name):
    pool = make_pool(600)
    parts = PARTITIONS[name](pool, 10, 0, by="height", bins=4)
    height = pool.train.targets[0].numpy()
    means = np.array([height[part].mean() for part in parts])
    # Of 60 independent values each, means have a variance of 1/60.
    assert means.var() > 5 / 60 * height.var()
    assert not np.array_equal(parts[0], PARTITIONS[name](pool, 10, 0, by="height", bins=5)[0])


@pytest.mark.parametrize("name", [*BY_BINS, "dirichlet-joint"])
def test_more_bins_than_values_are_refused_with_both_numbers(name):
    part = Examples(torch.zeros(50, 2), (torch.arange(50) % 3 / 2,))
    by = {"by_tasks": ("level",)} if name == "dirichlet-joint" else {"by": "level"}
    with pytest.raises(DataError, match=r"data\.bins = 4: the target 'level' has 3 different values only"):
        PARTITIONS[name](Pool((Task("level", "regression"),), part, part), 5, 0, bins=4, **by)


@pytest.mark.parametrize("name", ["iid", "dirichlet"])
def test_a_hundred_thousand_clients_get_their_shards(name):
    parts = PARTITIONS[name](make_pool(300_000), 100_000, 0)
    assert len(parts) == 100_000
    assert min(map(len, parts)) >= 1
    assert sum(map(len, parts)) == 300_000
