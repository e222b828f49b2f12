"""Every strategy, whole, over random fleets: its uploads count once, and a run may be cut at any event."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmtl.randomness import derive_seed
from fedmtl.state import split
from simulations.presets import preset_tables
from strategies.core.loop import Loop
from strategies.core.strategy import Strategy
from strategies.recipes.catalogue import STRATEGIES, build_strategy

_PRESET = preset_tables("fedqs-reference")["strategy"]
THEIRS = {key: value for key, value in _PRESET.items() if key not in ("name", "buffer_size", "aggregation")}
"""Every fault of the authors' code, at the size and in the mode of a test."""

SMALL = {"buffer_size": 3}
GROUPS = {"q_max": 6, "latency_factor": 1.2}
VARIANTS: dict[str, tuple[str, dict]] = {
    **{name: (name, {}) for name in STRATEGIES},
    **{name: (name, SMALL) for name in ("fedqs", "fedsgd", "fedavg-safl", "fedbuff", "fedac", "fadas", "ca2fl")},
    **{name: (name, SMALL) for name in ("safa", "mstep", "wkafl", "defedavg")},
    "fedqs, models": ("fedqs", SMALL | {"aggregation": "model", "lg_source": "since_last"}),
    "fedqs, ticks, 3 busy": ("fedqs", SMALL | {"clock": "tick", "buffer": "one_per_tick", "concurrency": 3}),
    "fedqs, as its authors have it": ("fedqs", THEIRS | SMALL),
    "fedqs, overwritten models, 3 busy": (
        "fedqs",
        SMALL | {"aggregation": "model", "updates": "ref_overwrite", "concurrency": 3},
    ),
    "fedcompass": ("fedcompass", GROUPS),
    "fedcompass, models": ("fedcompass", GROUPS | {"aggregation": "model", "alpha": 1.0, "statistics": "group_mean"}),
    "fedcompass+": ("fedcompass", GROUPS | {"variant": "momentum", "client_rate": "decay"}),
    "fedcompass-n": ("fedcompass", GROUPS | {"variant": "normalised", "weights": "size", "staleness_at": "arrival"}),
    "fedqs over groups": (
        "custom",
        {
            "scheduler": {"name": "compass", "q_max": 6},
            "policy": "fedqs",
            "weighting": {"name": "share-of-all", "base": "fedqs"},
        },
    ),
}

every_variant = pytest.mark.parametrize("variant", VARIANTS)
worlds = st.fixed_dictionaries(
    {
        "clients": st.integers(1, 7),
        "newcomers": st.sampled_from([0, 2]),
        "seed": st.integers(0, 2**32),
        "spread": st.sampled_from([1, 9]),
        "losses": st.sampled_from([0, 150]),
        "strolls": st.sampled_from([0, 150]),
        "for_good": st.sampled_from([0, 500]),
        "faults": st.sampled_from([0, 200]),
    }
)
FAULTS = ("nan", "version", "failure", "duplicate", "stranger")  # clients know the length of their own update


def make_fleet(toys, world: dict):
    def draw(purpose: str, client: int, job: int, below: int) -> int:
        return derive_seed(world["seed"], purpose, client, job) % below

    def absence(purpose: str, client: int, job: int) -> tuple[float, float | None] | None:
        if draw(purpose, client, job, 1000) >= world[purpose]:
            return None
        stays = draw("for good", client, job, 1000) < world["for_good"]
        return 0.25 * draw("after", client, job, 5), None if stays else 2.5

    quirks = toys.Quirks(
        outage=lambda client, job: absence("losses", client, job),
        stroll=lambda client, job: absence("strolls", client, job),
        fault=lambda client, job: (
            FAULTS[draw("which", client, job, len(FAULTS))]
            if draw("fault", client, job, 1000) < world["faults"]
            else ""
        ),
        newcomers=[3.5 * (number + 1) for number in range(world["newcomers"])],
    )
    return toys.Fleet(world["clients"], lambda c, j: 1.0 + draw("duration", c, j, world["spread"]), quirks)


def make(variant: str) -> Strategy:
    return build_strategy(*VARIANTS[variant])


@pytest.mark.slow
@every_variant
@settings(max_examples=6, deadline=None)
@given(world=worlds, moment=st.integers(1, 90))
def test_a_strategy_counts_each_upload_once_and_may_be_cut_at_any_event(
    toys, variant: str, world: dict, moment: int
) -> None:
    whole, seen = toys.run(make(variant), make_fleet(toys, world), events=100)
    settled = [u for a in seen.aggregations for u in a.updates] + [r.update for r in seen.rejections]
    assert Counter(map(id, [*settled, *whole.strategy.unsettled()])) == Counter(map(id, seen.received))
    assert [a.version for a in seen.aggregations] == list(range(1, len(seen.aggregations) + 1))
    for aggregation in seen.aggregations:
        assert min(aggregation.staleness) >= 0
        assert all(math.isfinite(weight) for weight in aggregation.weights)
    assert all(torch.isfinite(vector).all() for vector in seen.vectors)

    moment = min(moment, len(seen.events))
    first, _ = toys.run(make(variant), make_fleet(toys, world), events=moment, cut=True)
    rest = make(variant)
    rest.initialise(toys.start_model())
    trace = toys.Trace()
    second = Loop(rest, make_fleet(toys, world), [trace])
    second.load_state_dict(toys.through_json(first.state_dict()))
    left = len(seen.events) - moment
    second.run(lambda loop: "events" if len(trace.events) >= left and whole.ended == "events" else None)
    assert second.ended == whole.ended
    assert torch.equal(rest.model.vector, whole.strategy.model.vector)
    (plain, tensors), (wanted, wanted_tensors) = split(second.state_dict()), split(whole.state_dict())
    assert json.dumps(plain) == json.dumps(wanted)
    assert all(torch.equal(tensors[key].nan_to_num(), wanted_tensors[key].nan_to_num()) for key in wanted_tensors)
