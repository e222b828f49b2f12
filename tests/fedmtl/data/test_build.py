"""From a configuration to shards: options, hold-out, ownership, errors."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.config import parse_config
from fedmtl.data.build import build_data, data_options
from fedmtl.data.holdout import hold_out
from fedmtl.data.ownership import task_groups, task_owners
from fedmtl.errors import ConfigError, DataError


def build(*assignments: str):
    return build_data(parse_config({}, assignments))


def test_the_main_job_has_a_hundred_clients_and_every_example_is_used_once():
    data = build()
    used = torch.cat([data.shards.indices, data.validation.indices])
    assert data.clients == 100
    assert data.input_shape == (1, 8, 8)
    assert [task.name for task in data.tasks] == ["digit", "parity", "ink", "asymmetry"]
    assert torch.equal(used.sort().values, torch.arange(1297))
    assert data.shards.sizes.min() >= 1
    assert data.owners.all()


def test_the_seed_decides_every_bit_and_nothing_else_does():
    first, again, other = build("seed=1"), build("seed=1", "name=x", "training.epochs=9"), build("seed=2")
    for a, b in ((first.shards, again.shards), (first.validation, again.validation)):
        assert torch.equal(a.indices, b.indices)
        assert np.array_equal(a.offsets, b.offsets)
    assert torch.equal(first.train.features, again.train.features)
    assert not torch.equal(first.shards.indices, other.shards.indices)


def test_the_split_of_the_examples_does_not_change_with_the_tasks():
    assert torch.equal(build().shards.indices, build('tasks.names=["ink"]').shards.indices)


def test_options_are_complete_and_plain():
    assert data_options(parse_config({}, ["data.alpha=1"])) == {
        "target_noise": 0.5,
        "alpha": 1.0,
        "min_examples": 1,
        "by": "",
        "bins": 10,
    }


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["data.source=digit"], r"data\.source = 'digit' is unknown \(did you mean 'digits'\?\)"),
        (["data.partition=dirichlett"], r"data\.partition = .*did you mean 'dirichlet'"),
        (["data.alpah=1"], r"data\.alpah is not a key of source 'digits' or partition 'dirichlet' .*'alpha'"),
        (["data.client=5"], r"data\.client is not a key .*did you mean 'clients'"),
        (["data.partition=iid", "data.alpha=1"], r"data\.alpha is not a key.*belongs to partition 'dirichlet'"),
        (["data.alpha=0"], r"data\.alpha = 0: should be greater than 0"),
        (["data.alpha=x"], r"data\.alpha = 'x'"),
        (["data.target_noise=-1"], r"data\.target_noise = -1"),
        (["data.source=synthetic"], r"set data\.partition = 'natural'"),
        (["data.partition=task-disjoint"], r"set tasks\.ownership = 'disjoint'"),
        (["data.source=files"], r"data\.path is missing"),
        (["tasks.names=['x']"], r"tasks\.names: 'x' is not a task"),
    ],
)
def test_wrong_keys_and_values_are_named(assignments, message):
    with pytest.raises(ConfigError, match=message):
        build(*assignments)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["data.clients=1298"], r"data\.clients = 1298: .*the data have 1297; use at most 1297 clients"),
        (["data.min_examples=13"], r"use at most 99 clients or a smaller data\.min_examples"),
        (["data.clients=3", "tasks.ownership=disjoint"], r"data\.clients = 3: 4 tasks .* at least 4 clients"),
        (["data.source=files", "data.path=no.npz", "data.targets.y=binary"], r"no\.npz: there is no such file"),
    ],
)
def test_impossible_data_are_refused_with_the_remedy(assignments, message):
    with pytest.raises(DataError, match=message):
        build(*assignments)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    fraction=st.floats(0, 0.99),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_client_holds_out_its_share_and_keeps_an_example(sizes, fraction, seed):
    cuts = np.cumsum([0, *sizes])
    order = np.random.default_rng(0).permutation(cuts[-1])
    parts = [np.sort(order[a:b]) for a, b in itertools.pairwise(cuts)]
    train, validation = hold_out(parts, fraction, seed)
    for client, part in enumerate(parts):
        kept, held = train[client].tolist(), validation[client].tolist()
        assert sorted(kept + held) == part.tolist()
        assert len(held) == min(int(fraction * len(part) + 0.5), len(part) - 1)


def test_held_out_examples_are_drawn_at_random():
    parts = [np.arange(k * 100, (k + 1) * 100) for k in range(20)]
    _, first = hold_out(parts, 0.2, 0)
    _, second = hold_out(parts, 0.2, 1)
    places = np.concatenate([first[k].numpy() - 100 * k for k in range(20)])
    # 400 draws from 0..99: the mean has a standard error of 1.3.
    assert abs(places.mean() - 49.5) < 6.5
    assert not torch.equal(first.indices, second.indices)
    # Which example is held out does not hang on whose it is, so other clients' shards do not matter.
    _, alone = hold_out(parts[7:8], 0.2, 0)
    assert torch.equal(alone[0], first[7])


def test_no_fraction_holds_nothing_out():
    data = build("data.validation_fraction=0")
    assert data.validation.sizes.sum() == 0
    assert data.shards.sizes.sum() == 1297


@pytest.mark.parametrize("ownership", ["all", "random", "disjoint", "skewed"])
@given(clients=st.integers(1, 60), tasks=st.integers(1, 12), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_every_client_has_a_task_and_every_task_an_owner(ownership, clients, tasks, seed):
    if ownership == "disjoint" and clients < tasks:
        with pytest.raises(DataError, match=r"data\.clients"):
            task_owners(ownership, clients, tasks, seed)
        return
    owners = task_owners(ownership, clients, tasks, seed)
    assert owners.shape == (clients, tasks)
    assert owners.dtype == bool
    assert owners.any(axis=1).all()
    assert owners.any(axis=0).all()


def test_ownership_means_what_its_name_says():
    assert task_owners("all", 10, 3, 0).all()
    disjoint = task_owners("disjoint", 10, 4, 0)
    assert set(disjoint.sum(axis=1)) == {1}
    assert sorted(disjoint.sum(axis=0)) == [2, 2, 3, 3]
    assert np.array_equal(disjoint.argmax(axis=1), task_groups(10, 4, 0))
    # 1000 clients: a share of 1/2 has a standard error of 0.016; clients without a task raise it a little.
    assert np.abs(task_owners("random", 1000, 5, 0).mean(axis=0) - 0.5).max() < 0.1
    skewed = task_owners("skewed", 1000, 4, 0).mean(axis=0)
    assert np.allclose(skewed, [1, 0.5, 0.25, 0.125], atol=0.07)


def test_a_hundred_thousand_clients_of_synthetic_data():
    small = ("data.synthetic_least=3", "data.synthetic_log_sigma=0", "data.synthetic_log_mean=0")
    data = build(
        "data.source=synthetic", "data.partition=natural", "data.clients=100000", "data.synthetic_features=5", *small
    )
    assert data.clients == 100_000
    assert set(data.shards.sizes) == {2, 3}
    assert set(data.validation.sizes) == {1}
    assert len(data.test) == 40_000


def test_one_task_alone_keeps_everything_else_as_it_is():
    whole, alone = build("tasks.ownership=disjoint"), build("tasks.ownership=disjoint", "tasks.only=ink")
    assert [task.name for task in alone.tasks] == ["ink"]
    assert torch.equal(alone.train.targets[0], whole.train.targets[2])
    assert torch.equal(alone.shards.indices, whole.shards.indices)
    assert torch.equal(alone.validation.indices, whole.validation.indices)
    assert list(alone.active) == np.flatnonzero(whole.owners[:, 2]).tolist()
    assert alone.tasks_of(alone.active[0]) == (0,)
    assert list(whole.active) == list(range(100))


def test_a_task_to_learn_alone_must_be_one_of_the_experiments():
    with pytest.raises(ConfigError, match=r"tasks\.only = 'inc'.*did you mean 'ink'.*known: digit, parity, ink"):
        build("tasks.only=inc")
    with pytest.raises(ConfigError, match="known: digit, parity"):
        build('tasks.names=["digit", "parity"]', "tasks.only=ink")
