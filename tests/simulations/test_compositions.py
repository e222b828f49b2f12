"""Free compositions on real digits: any scheduler with any aggregator and any policy works, or is refused with both."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from fedmtl.errors import ConfigError
from fedmtl.randomness import numpy_generator
from simulations import Experiment, run
from strategies.aggregators.table import AGGREGATORS
from strategies.policies.table import POLICIES
from strategies.recipes.catalogue import build_strategy
from strategies.schedulers.table import SCHEDULERS

PARTNERS: dict[str, dict[str, dict[str, Any]]] = {
    "aggregator": {"singles-apart": {"scheduler": "compass"}, "tier-models": {"scheduler": "tiered"}},
    "policy": {
        "scaled-rate": {"scheduler": "queued"},
        "merging": {"scheduler": "synchronous", "aggregator": {"name": "gossip", "steps": 0}},
    },
}
"""What a part that stands by itself nowhere asks for, by the kind and name of the part."""

NO_RULE = "no rule"
REFUSED = {
    ("LoneReports", "groups"),
    ("TierModels", "tiers"),
    ("ScaledRate", "step-budgets"),
    ("Merging", "neighbours"),
    ("CachedModels", "distinct-clients"),
    ("Gossip", "fresh-updates"),
    ("ControlVariates", "every-update"),
    ("DualAveraged", "duals"),
    ("DualAveraged", "every-update"),
    ("DualCorrected", "duals-mean"),
    ("MinNormAggregator", "task-changes"),
    ("ControlVariates", NO_RULE),
    ("Asynchronous", NO_RULE),
}
"""Which part is refused for want of what, or beside a rule, in the combinations of parts with their default options."""


SMALL_CONVOLUTIONS = ["model.name=lenet", "model.channels=[2,4]", "model.hidden=[12]"]


def options(scheduler: str, aggregator: str, policy: str) -> dict[str, str]:
    return {"scheduler": scheduler, "aggregator": aggregator, "policy": policy}


def refusal(parts: dict[str, Any]) -> str | None:
    try:
        build_strategy("custom", parts)
    except ConfigError as error:
        return str(error)
    return None


EVERY = [options(*names) for names in itertools.product(SCHEDULERS, AGGREGATORS, POLICIES)]
REASONS = [refusal(parts) for parts in EVERY]
ALLOWED = [parts for parts, reason in zip(EVERY, REASONS, strict=True) if reason is None]


def walked() -> list[dict[str, str]]:
    """One of those allowed for each scheduler and aggregator, each policy about as often; all would take minutes."""
    generator = numpy_generator(0, "compositions")
    waiting = [ALLOWED[place] for place in generator.permutation(len(ALLOWED))]
    found: dict[tuple[str, str], dict[str, str]] = {}
    counts = dict.fromkeys((parts["policy"] for parts in waiting), 0)
    for pair in dict.fromkeys((parts["scheduler"], parts["aggregator"]) for parts in waiting):
        fitting = [parts for parts in waiting if (parts["scheduler"], parts["aggregator"]) == pair]
        found[pair] = min(fitting, key=lambda parts: counts[parts["policy"]])
        counts[found[pair]["policy"]] += 1
    return list(found.values())


WALKED = walked()


def test_a_combination_that_makes_no_sense_is_refused_and_the_reason_names_the_parts() -> None:
    found = set()
    for parts, reason in zip(EVERY, REASONS, strict=True):
        if reason is None:
            continue
        who, _, rest = reason.partition(" with ")
        if parts["aggregator"] == "robust" and who == "aggregator = 'median'":
            found.add((rest.partition(": ")[0], NO_RULE))
            continue
        partners, _, why = rest.partition(": it needs '")
        what, _, cause = why.partition("', which none of them has; ")
        assert partners
        assert cause, f"{parts}: {reason}"
        found.add((who, what))
    assert found == REFUSED


def test_every_part_works_with_some_others() -> None:
    for kind, table in (("scheduler", SCHEDULERS), ("aggregator", AGGREGATORS), ("policy", POLICIES)):
        alone = {parts[kind] for parts in ALLOWED}
        for name in table.keys() - alone:
            assert refusal({**PARTNERS[kind][name], kind: name}) is None
    assert {parts[kind] for parts in WALKED for kind in parts} == {parts[kind] for parts in ALLOWED for kind in parts}


@pytest.mark.parametrize("parts", WALKED, ids=lambda parts: "-".join(parts.values()))
def test_a_combination_runs_on_digits_and_applies_each_update_once(tmp_path: Path, parts: dict[str, str]) -> None:
    overrides = [
        "data.clients=6",
        "stop.updates=30",
        "records.evaluate_every=1000",
        "records.checkpoint_every=1000",
        'tasks.names=["digit"]',
        "training.epochs=1",
        "training.batch_size=100",
        "balancing.name=equal",
        "strategy.name=custom",
        *(f"strategy.{kind}.name={name}" for kind, name in parts.items()),
        *(["strategy.scheduler.q_max=10"] if parts["scheduler"] == "compass" else []),
        *(["strategy.policy.attack_steps=2"] if parts["policy"] == "adversarial" else []),
        *(SMALL_CONVOLUTIONS if parts["policy"] == "convolution-decay" else []),
    ]
    experiment = Experiment.load(None, overrides)
    result = run(experiment, tmp_path / "run", pictures=False)
    counts = result.summary["updates"]
    rows = pq.read_table(tmp_path / "run" / "updates.parquet").to_pylist()
    keys = [(row["client"], row["job"]) for row in rows]
    assert len(keys) == len(set(keys)) >= 30
    assert counts["applied"] >= 20
    assert counts["applied"] == sum(row["applied_version"] is not None for row in rows)
    assert counts["applied"] + counts["rejected"] + counts["unsettled"] == len(rows)
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "run" / "model.safetensors").values())
