"""`training.steps`: a job counted in local steps instead of epochs, whatever the strategy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedmtl.errors import ConfigError
from fedmtl.protocol import TrainSettings
from fedmtl.toy import toy_model
from simulations import Experiment, run
from strategies.core.jobs import Jobs
from strategies.core.ledger import Ledger
from strategies.policies import Proximal

SMALL = (
    *("data.clients=6", "data.partition=iid", "model.hidden=[8]", "balancing.name=equal", "training.batch_size=50"),
    *("devices.kind=homogeneous", "devices.per=step", "devices.seconds=0.5", "stop.versions=2"),
    "records.evaluate_every=100",
)


def updates_of(directory: Path, *overrides: str) -> list[dict[str, object]]:
    run(Experiment.load(overrides=[*SMALL, *overrides]), directory, pictures=False)
    updates = pq.read_table(directory / "updates.parquet").to_pylist()
    assert updates
    assert not any(update["rejected"] for update in updates)
    return updates


@pytest.mark.parametrize(
    ("strategy", "steps"),
    [
        (("strategy.name=fedqs", "strategy.buffer_size=3"), {37}),
        (("strategy.name=scaffold",), {37}),
        (("strategy.name=curriculum", "strategy.versions=2", "strategy.order=random"), {37}),
        (("strategy.name=fedavg", "strategy.step_budget=2.5", "stop.versions=3"), {5, 37}),  # once speeds are known
        (("strategy.name=fedprox", "strategy.stragglers=1.0", "strategy.mu=0.1"), set(range(1, 38))),
        (("strategy.name=fedcompass", "strategy.q_min=2", "strategy.q_max=4"), {2, 3, 4}),  # sets steps itself
    ],
)
def test_every_job_has_so_many_steps_and_takes_their_time(
    strategy: tuple[str, ...], steps: set[int], tmp_path: Path
) -> None:
    # 37 steps are beyond one pass: a shard has about 200 examples, or four batches.
    updates = updates_of(tmp_path, *strategy, "training.steps=37")
    counted = {update["steps"] for update in updates}
    assert counted <= steps
    assert len(counted) > 1 or len(steps) == 1 or "fedcompass" in strategy[0]
    for update in updates:
        assert update["arrived_at"] - update["dispatched_at"] == pytest.approx(0.5 * update["steps"])  # type: ignore[operator]


def test_as_many_steps_as_the_epochs_make_are_the_same_run(tmp_path: Path) -> None:
    sizes = Experiment.load(overrides=SMALL).data.shards.sizes
    batches = {-(-int(size) // 50) for size in sizes}
    assert len(batches) == 1
    epochs = updates_of(tmp_path / "epochs", "strategy.name=fedavg", "training.epochs=2")
    steps = updates_of(tmp_path / "steps", "strategy.name=fedavg", f"training.steps={2 * batches.pop()}")
    assert epochs == steps
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("epochs", "steps")]
    assert models[0] == models[1]


def test_steps_stand_in_the_place_of_epochs_and_both_are_refused() -> None:
    experiment = Experiment.load(overrides=["training.steps=8"])
    assert "epochs" not in experiment.tables["training"]
    assert Experiment.load(tables=experiment.tables).digest == experiment.digest != Experiment.load().digest
    assert Experiment.load().tables["training"]["epochs"] == 2
    assert "steps" not in Experiment.load().tables["training"]
    with pytest.raises(ConfigError, match=r"training.steps = 8: should be left out, or training.epochs = 3 be unset"):
        Experiment.load(tables={"training": {"epochs": 3}}, overrides=["training.steps=8"])
    back = Experiment.load(tables={"training": {"epochs": 3}}, overrides=["training.steps=8", "training.epochs=unset"])
    assert back.settings.local_steps(1000) == 8
    with pytest.raises(ConfigError, match=r"training.steps = 0: should be greater than 0"):
        Experiment.load(overrides=["training.steps=0"])


def test_short_batches_that_are_dropped_leave_no_step() -> None:
    dropping = TrainSettings(steps=4, batch_size=10, tiny_clients="ref_drop_last")
    assert [dropping.local_steps(examples) for examples in (9, 10)] == [0, 4]


def test_who_is_fast_does_not_depend_on_sizes_then() -> None:
    experiment = Experiment.load(overrides=[*SMALL, "data.partition=dirichlet", "training.steps=4"])
    assert len(set(experiment.data.shards.sizes.tolist())) > 1
    np.testing.assert_array_equal(experiment.nominal_seconds, np.full(6, 2.0))


def test_a_client_may_claim_as_many_steps_and_no_more() -> None:
    jobs = Jobs(needs_bases=False)
    settings = TrainSettings(steps=5)
    for client, own in ((0, None), (1, 3)):
        jobs.give(client, toy_model([0.0]), own, settings)
    claimed = {client: asked.most_steps(1000) for client, asked in jobs._out.items()}
    assert claimed == {0: 5, 1: 3}  # what the scheduler says counts


def test_stragglers_do_some_of_the_steps() -> None:
    policy, start = Proximal(mu=0.1, stragglers=1.0), toy_model([0.0])
    policy.prepare(start, seed=0)
    told = [policy.instruct(client, TrainSettings(steps=5), start, Ledger()).settings for client in range(200)]
    assert {one.steps for one in told} == {1, 2, 3, 4, 5}
    assert {one.epochs for one in told} == {TrainSettings().epochs}
