"""Rules of batch-norm statistics that no method of the literature has in its recipe."""

from __future__ import annotations

import pytest
import torch

from fedmtl.protocol import GlobalModel
from strategies.aggregators import BatchNormStatistics, GradientAggregator, Overwritten
from strategies.core.kinds import Step
from strategies.core.ledger import Ledger
from strategies.core.part import parts_within
from strategies.weightings import DataSize, Uniform


def make_step(toys) -> Step:
    model = GlobalModel(3, toys.start_model().vector, toys.LAYOUT)
    updates = [toys.make_update(0, version=3), toys.make_update(1, version=1)]
    return Step(model, updates, {1: torch.full((toys.LAYOUT.size,), 7.0)}, "full", frozenset(), Ledger())


def test_an_average_is_one_of_models_by_the_weights_also_where_updates_are_added(toys) -> None:
    step, inner = make_step(toys), GradientAggregator(DataSize(), server_rate=0.5)
    vector, weights = BatchNormStatistics(inner, rule="average").aggregate(step)
    plain, same = inner.aggregate(step)
    buffers, rest = toys.LAYOUT.buffers, toys.LAYOUT.trainable
    assert weights == same
    assert torch.equal(vector[rest], plain[rest])
    shares = [10 / 21, 11 / 21]  # the toys' examples
    models = [step.model.vector + step.updates[0].delta, step.bases[1] + step.updates[1].delta]
    expected = sum(share * model[buffers] for share, model in zip(shares, models, strict=True))
    torch.testing.assert_close(vector[buffers], expected)


def test_kept_statistics_need_no_bases_and_stay(toys) -> None:
    step, kept = make_step(toys), BatchNormStatistics(GradientAggregator(Uniform()), rule="keep_server")
    vector, _ = kept.aggregate(step)
    assert not any(part.needs_bases for part in parts_within(kept))
    assert torch.equal(vector[toys.LAYOUT.buffers], step.model.vector[toys.LAYOUT.buffers])
    assert not torch.equal(vector, step.model.vector)


@pytest.mark.parametrize("known", [False, True])
def test_averaged_statistics_are_those_of_the_content_that_is_read(toys, known: bool) -> None:
    step = make_step(toys)
    overwritten = Overwritten(BatchNormStatistics(GradientAggregator(Uniform()), rule="average"))
    newer = toys.make_update(1, job=1, version=3)
    for update in (*step.updates, *([newer] if known else [])):
        overwritten.on_outcome_known(update, Ledger())
    vector, _ = overwritten.aggregate(step)
    second = step.model.vector + newer.delta if known else step.bases[1] + step.updates[1].delta
    expected = (step.model.vector + step.updates[0].delta + second) / 2
    torch.testing.assert_close(vector[toys.LAYOUT.buffers], expected[toys.LAYOUT.buffers])
