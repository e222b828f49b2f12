"""Options that a recipe has from the parts it composes: each works in every such recipe, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fedmtl.components import options_of
from fedmtl.errors import ConfigError
from strategies.recipes.catalogue import STRATEGIES, build_strategy
from strategies.schedulers import Buffered, Synchronous

OPTIONS: dict[type, list[dict[str, Any]]] = {
    Synchronous: [
        {"clients_per_round": 3, "over_commit": 1.5},
        {"clients_per_round": 3, "over_commit": 1.5, "late": "keep"},
        {"timeout": 1.5},
        {"step_budget": 2.0},
    ],
    Buffered: [
        {"max_staleness": 1},
        {"flush_seconds": 2.5},
        {"max_buffer": 12},
        {"clock": "tick", "buffer": "one_per_tick", "tick": 0.5},
        {"clock": "tick", "tick_order": "client"},
    ],
}


def recipes(scheduler: type) -> list[str]:
    """The recipes that have all options of that scheduler."""
    asked = {option.name for option in options_of(scheduler)}
    return [name for name, recipe in STRATEGIES.items() if asked <= {option.name for option in options_of(recipe)}]


CASES = [(name, given) for scheduler, several in OPTIONS.items() for name in recipes(scheduler) for given in several]


def test_most_methods_have_them() -> None:
    assert len(recipes(Synchronous)) == 16
    assert len(recipes(Buffered)) == 9


@pytest.mark.parametrize(("name", "given"), CASES, ids=lambda value: str(value))
def test_an_option_of_a_composed_part_works_or_is_refused_with_a_reason(toys, name: str, given: dict[str, Any]) -> None:
    refused = ""
    try:
        strategy = build_strategy(name, given)
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert name in ("scaffold", "fedspeed", "fedac"), "only variates and duals need every update"
        assert "it needs 'every-update'" in refused
        return
    fleet = toys.Fleet(8, lambda client, job: 0.5 + 0.25 * client)
    loop, trace = toys.run(strategy, fleet, versions=4)
    assert loop.strategy.model.version == 4
    assert loop.strategy.model.vector.isfinite().all()
    assert {update.client for update in trace.received} <= set(range(8))
