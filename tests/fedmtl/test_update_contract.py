"""The contract of updates: a rule for each field, on the page as in the checks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmtl.protocol import Arrival, TrainSettings, Update
from fedmtl.text import printable, shown
from fedmtl.toy import toy_model, toy_update
from fedmtl.update_contract import CONTRACT, Claim, contract_table, form_fault, recordable
from strategies.core.claims import Claims
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import build_strategy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "update-contract.md"

JUNK: dict[str, list[Any]] = {
    "a whole number": [True, 1.0, np.int64(3), "3", None, -1, 2**53, [1]],
    "a number": [True, np.float64(0.1), np.float32(0.1), "0.1", None, 10**400, [0.1]],
    "a tuple of whole numbers": [[0, 1], (True,), (0.0,), (np.int64(0),), 0, None, ("0",)],
    "a tuple of numbers": [[0.5, 0.5], (True, 0.5), (np.float32(0.5), 0.5), ("0.5", 0.5), 0.5, None],
    "a dense tensor, float32": [None, [0.0, 0.0], np.zeros(2), "delta", torch.zeros(2).to_sparse()],
    "a dense tensor, float32, or None": [[0.0], np.zeros((1, 2)), torch.zeros(1, 2).to_sparse()],
    "a table of dense tensors, float32": [None, [], {"a": [0.0]}, {3: torch.zeros(2)}],
    "a table of numbers": [None, [], {"a": "high"}, {"a": True}, {3: 0.5}, {"a": np.float64(1.0)}],
    "a text of at most 500 characters, or None": [3, b"text", ["text"], "x" * 501],
}


def test_every_field_of_an_update_has_a_rule_and_the_page_says_what_the_checks_do() -> None:
    assert sorted(rule.name for rule in CONTRACT) == sorted(Update.__slots__)
    assert contract_table() in PAGE.read_text(encoding="utf-8"), "run contract_table() and put it on the page"


def ordered(name: str = "fedasync", **options: Any) -> Strategy:
    """A strategy whose client 0 has its first order: one epoch, which over ten examples is two steps."""
    strategy = build_strategy(name, options)
    strategy.initialise(toy_model([0.0, 0.0, 0.0], heads=(1,)), TrainSettings(epochs=1, batch_size=5))
    strategy.orders(strategy.begin([0], 0.0).decision.assignments)
    return strategy


def reason(strategy: Strategy, **fields: Any) -> str | None:
    """Why an update is turned down that is good but for these fields; None if it is not."""
    update = toy_update(0, [0.1, 0.2, 0.3], **{"task_losses": (0.5,), "mean_task_weights": (1.0,)})
    for name, value in fields.items():
        setattr(update, name, value)
    rejections = strategy.on_event(Arrival(1.0, update)).rejections
    return rejections[0].reason if rejections else None


@pytest.mark.parametrize("rule", CONTRACT, ids=[rule.name for rule in CONTRACT])
def test_a_field_of_another_type_is_rejected_and_can_be_recorded(rule: Any) -> None:
    for junk in JUNK[rule.kind]:
        found = reason(ordered(), **{rule.name: junk})
        assert found is not None, junk
        assert found.startswith(f"{rule.name} is "), (junk, found)
        update = toy_update(0)
        setattr(update, rule.name, junk)
        assert form_fault(recordable(update)) is None or rule.default == -1


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"steps": 10**7}, "claims 10000000 steps, was asked for 2"),
    ({"steps": 3}, "claims 3 steps, was asked for 2"),
    ({"task_losses": (-5.0,)}, "task_losses claims -5"),
    ({"task_losses": (1e50,)}, "task_losses claims 1e"),
    ({"task_losses": (math.nan,)}, "task_losses is not finite"),
    ({"task_losses": (0.5, 0.5)}, "task_losses has 2 numbers, expected 1 or none"),
    ({"mean_task_weights": (-1e9,)}, "mean_task_weights claims -1e"),
    ({"task_traces": (math.inf,)}, "task_traces is not finite"),
    ({"task_traces": (1e39,)}, "task_traces claims 1e"),
    ({"task_sketches": torch.zeros(1, 8)}, "carries sketches, which nobody asked for"),
    ({"terms": {"similarity": math.nan}}, "carries the term 'similarity', which nobody asked for"),
    ({"terms": {f"term {n}": 0.0 for n in range(10_000)}}, "carries the term 'term 0', which nobody asked for"),
    ({"vectors": {"more": torch.zeros(3)}}, "carries the vector 'more', which nobody asked for"),
    ({"learning_rate": 0.2}, "claims the learning rate 0.2, expected 0 to 0.1"),
    ({"momentum": 0.5}, "claims momentum 0.5, expected 0 to 0"),
    ({"tasks": (0, 1)}, "claims the tasks (0, 1) of 1"),
    ({"tasks": tuple(range(10**5))}, "claims the tasks (0, 1, 2"),
    ({"arrived_at": 1.0, "dispatched_at": 2.0}, "arrived at 1.0 s, was sent at 2.0 s"),
    ({"dispatched_at": math.nan}, "arrived at"),
    ({"failure": "\ud800\x1b"}, "\ufffd\ufffd"),
]


@pytest.mark.parametrize(("fields", "expected"), BROKEN, ids=[", ".join(fields) for fields, _ in BROKEN])
def test_a_field_that_is_not_what_was_asked_for_is_rejected(fields: dict[str, Any], expected: str) -> None:
    found = reason(ordered(), **fields)
    assert found is not None
    assert found.startswith(expected)
    assert len(found) <= 500
    assert reason(ordered()) is None


def test_a_similarity_that_is_none_is_rejected_where_similarities_are_asked_for() -> None:
    assert reason(ordered("fedqs"), terms={"similarity": 90.0}) is None
    assert reason(ordered("fedqs"), terms={"similarity": math.nan}) == "claims similarity = nan, expected 0 to 180"
    assert reason(ordered("fedqs"), learning_rate=0.19, momentum=0.45) is None, "its clients adapt both"
    assert reason(ordered("fedqs"), momentum=0.6) == "claims momentum 0.6, expected 0 to 0.5"


def test_a_claim_is_held_against_what_is_known_in_a_simulation() -> None:
    strategy = ordered()
    strategy.face(simulated=True, known=lambda client: Claim(10, (0,)))
    assert reason(strategy, examples=11, steps=1) == "claims 11 examples and the tasks (0,), has 10 and (0,)"


def test_the_first_claim_of_a_real_client_stands_and_one_of_far_too_many_examples_does_not() -> None:
    claims = Claims()
    for client in range(5):
        assert claims.differs(toy_update(client, examples=20)) is None
        assert claims.excess(toy_update(client, examples=20)) is None
    assert claims.differs(toy_update(9, examples=2000)) is None
    assert claims.excess(toy_update(9, examples=2000)) is None, "100 times the median is the most"
    assert claims.differs(toy_update(8, examples=10**9)) is None
    assert claims.excess(toy_update(8, examples=10**9)) == "claims 1000000000 examples, the median of 7 clients is 20"
    again = Claims()
    again.load_state_dict(claims.state_dict())
    assert again.differs(toy_update(0, examples=21)) == "claims 21 examples and the tasks (0,), said 20 and (0,) first"
    assert again.state_dict() == claims.state_dict()


def test_text_from_outside_is_printable_and_short() -> None:
    assert printable("Größe ✓ [bold]") == "Größe ✓ [bold]"
    assert printable("a\x00b\x1b[31m\ud800\u202e\tc\n") == "a\ufffdb\ufffd[31m\ufffd\ufffd c "
    assert printable("x" * 600) == "x" * 497 + "..."
    assert printable("x" * 600).encode("utf-8")

    class Hostile:
        def __repr__(self) -> str:
            raise ValueError

    assert shown(Hostile()) == "a Hostile"
    assert len(shown("y" * 10**6)) == 60
