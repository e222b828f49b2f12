"""Every strategy with clients that lie: whatever they claim, the run goes on and the model stays finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from fedmtl.protocol import Update
from strategies.recipes.catalogue import STRATEGIES, build_strategy

HUGE, MOST = 3e38, 2**53 - 1  # the largest that an update's vectors and whole numbers can hold on the wire


def alternating(like: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(len(like)) % 2 == 0, HUGE, -HUGE).float()


def told(name: str, value: object) -> Callable[[Update], None]:
    return lambda update: setattr(update, name, value)


def claiming(**terms: float) -> Callable[[Update], None]:
    return lambda update: setattr(update, "terms", {**update.terms, **terms})


LIES: dict[str, Callable[[Update], None]] = {
    "a huge update": lambda update: update.delta.fill_(HUGE),
    "a huge zigzag": lambda update: update.delta.copy_(alternating(update.delta)),
    "huge vectors": lambda update: [vector.fill_(HUGE) for vector in update.vectors.values()],
    "no vectors": told("vectors", {}),
    "huge terms": lambda update: setattr(update, "terms", dict.fromkeys(update.terms, 1e308)),
    "low terms": lambda update: setattr(update, "terms", dict.fromkeys(update.terms, -1e308)),
    "no terms": told("terms", {}),
    "huge losses": told("task_losses", (1e308, 1e308)),
    "huge traces": told("task_traces", (1e308, 1e308)),
    "a huge similarity": claiming(similarity=1e308),
    "a low similarity": claiming(similarity=-1e308),
    "many steps": told("steps", MOST),
    "many examples": told("examples", MOST),
    "a huge rate": told("learning_rate", 1e308),
    "a momentum near 1": told("momentum", 1.0 - 1e-12),
    "feedback": claiming(feedback=1.0),
    "half a feedback bit": claiming(feedback=0.5),
    "a type that there is not": claiming(client_type=7.0),
    "fewer tasks": told("tasks", (1,)),
    "tasks in another order": told("tasks", (1, 0)),
}
VARIANTS: dict[str, tuple[str, dict]] = {
    **{name: (name, {}) for name in STRATEGIES},
    "fednova, proximal": ("fednova", {"mu": 0.1}),
    "fedcompass-n": ("fedcompass", {"variant": "normalised", "q_max": 6}),
    "oort, few": ("oort", {"clients_per_round": 3}),
    "heteroselect, by score": ("heteroselect", {"clients_per_round": 3, "score_rate": True, "weight_base": "score"}),
    "fedavg, krum": ("fedavg", {"aggregator": "krum"}),
    "fedavg, bulyan": ("fedavg", {"aggregator": "bulyan"}),
    "fedbuff, trimmed mean": ("fedbuff", {"aggregator": "trimmed-mean", "malicious": 2}),
    "fedqs, multikrum": ("fedqs", {"aggregator": "multikrum", "selected": 2}),
    "fednova, median": ("fednova", {"aggregator": "median", "mu": 0.1}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_lie_breaks_a_run(toys, variant: str) -> None:
    lies = list(LIES.values())
    fleet = toys.Fleet(6, lambda client, job: 1.0 + client % 3)
    honest = fleet._train

    def train(key):
        update = honest(key)
        if key.client in (2, 4) and key.job:
            lies[(2 * key.job + (key.client == 4)) % len(lies)](update)
        return update

    fleet._train = train
    strategy = build_strategy(*VARIANTS[variant])
    _, trace = toys.run(strategy, fleet, events=150)
    assert len(trace.events) == 150
    assert all(torch.isfinite(vector).all() for vector in trace.vectors)
    for aggregation in trace.aggregations:
        assert all(math.isfinite(weight) and weight >= 0.0 for weight in aggregation.weights)
    mean = strategy.ledger.mean("similarity")
    assert mean is None or 0.0 <= mean <= 180.0
