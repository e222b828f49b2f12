"""Parts that do not go together are refused with the reason, however deep they are held."""

from __future__ import annotations

import pytest

from fedmtl.errors import ConfigError
from strategies.aggregators import GradientAggregator
from strategies.core.kinds import Plain
from strategies.core.part import parts_within
from strategies.core.strategy import Strategy
from strategies.policies import FedQSPolicy
from strategies.schedulers import Asynchronous, Buffered, Synchronous
from strategies.weightings import DataSize, Discounted, FedQSWeights, Uniform, polynomial


class Counting(Plain):
    """A policy that keeps books which a dropped update would falsify."""

    needs = {"every-update": "its books would be wrong"}  # noqa: RUF012


def test_the_refusal_names_the_part_its_partners_the_need_and_the_reason() -> None:
    with pytest.raises(
        ConfigError, match=r"Counting with Buffered x .*: it needs 'every-update'.*books would be wrong"
    ):
        Strategy(Buffered(buffer_size=3, max_staleness=2), GradientAggregator(Uniform()), Counting())


@pytest.mark.parametrize("scheduler", [Buffered(buffer_size=3), Asynchronous(), Synchronous()])
def test_a_need_that_is_met_is_no_obstacle(scheduler) -> None:
    assert Strategy(scheduler, GradientAggregator(Uniform()), Counting()).policy.needs


def test_a_weighting_inside_an_aggregator_is_asked_too() -> None:
    held = GradientAggregator(Discounted(FedQSWeights(Uniform()), polynomial(0.5)))
    assert [type(part).__name__ for part in parts_within(held)] == [
        "GradientAggregator",
        "Discounted",
        "FedQSWeights",
        "Uniform",
    ]
    with pytest.raises(ConfigError, match=r"FedQSWeights .* needs 'feedback'.* take FedQSPolicy"):
        Strategy(Buffered(buffer_size=3), held)
    assert Strategy(Buffered(buffer_size=3), held, FedQSPolicy())


def test_a_need_may_depend_on_an_option() -> None:
    weighting = FedQSWeights(DataSize(), feedback=False)
    assert Strategy(Buffered(buffer_size=3), GradientAggregator(weighting)).name == "custom"
