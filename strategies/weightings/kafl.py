"""The weights of M-step FedAsync (KAFL): rare clients, and models near the global one, count more."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from strategies.core.kinds import Step, Weighting
from strategies.weightings.vectors import VectorWeighting


class KAFLWeights(VectorWeighting):
    """Rare clients and models near the global one count more (KAFL).

    ``p_i ~ b_i exp(-2 lambda_i / q_i)`` with ``lambda_i = |<w_g, w_i> / <w_i, w_i> - 1|``, over the trainable part.
    w_g is the global model and w_i the client's. q_i is found from the counts n(j) of the clients' applied updates:
    the clients of the aggregation are ranked by their counts, and q_i is the count at the reversed rank (the rarest
    client has the largest), divided by the sum of the counts; clients with equal counts share the mean of their
    ranks'. As these updates are counted, no q_i is 0. A model whose norm is 0 has ``lambda_i = 1``.

    Parameters
    ----------
    base
        Gives the b_i, for instance by examples.

    Examples
    --------
    The second client's model is the global one; the first one's is not, and it was applied more often.

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.core.kinds import Step
    >>> from strategies.weightings import KAFLWeights, Uniform
    >>> step = Step.of(toy_model([1.0, 1.0]), [toy_update(0, [0.5, 0.5]), toy_update(1, [0.0, 0.0])])
    >>> step.ledger.applied([toy_update(0, job=1)])
    >>> rule = KAFLWeights(Uniform())
    >>> rule.look(step)
    >>> [round(p, 3) for p in rule.weights(step.updates, 0, step.ledger)]
    [0.119, 0.881]
    """

    needs_bases = True

    def __init__(self, base: Weighting) -> None:
        super().__init__()
        self.base = base

    def look(self, step: Step) -> None:
        """Let the base look, then score the updates."""
        self.base.look(step)
        super().look(step)

    def scores(self, step: Step) -> Sequence[float]:
        """The p_i before they are divided by their sum; the largest exponential is made 1."""
        shares = reversed_shares([step.ledger.aggregated[update.client] for update in step.updates])
        exponents = [-2.0 * lambda_i / q for lambda_i, q in zip(self._lambdas(step), shares, strict=True)]
        base = self.base.weights(step.updates, step.model.version, step.ledger)
        largest = max(exponents)
        return [b * math.exp(exponent - largest) for b, exponent in zip(base, exponents, strict=True)]

    def under_rule(self) -> Weighting:
        """The base's: how far a model is from the others is the rule's to judge."""
        return self.base.under_rule()

    def _lambdas(self, step: Step) -> list[float]:
        part = step.model.layout.trainable
        w_g = step.model.vector[part]
        lambdas = []
        for update in step.updates:
            w_i = update.delta[part] + step.bases[update.base_version][part]
            square = torch.dot(w_i, w_i).item()
            ratio = torch.dot(w_g, w_i).item() / square if square else 0.0
            lambdas.append(abs(ratio - 1.0) if math.isfinite(ratio) else 1.0)
        return lambdas


def reversed_shares(counts: Sequence[int]) -> list[float]:
    """For each count the one at its reversed rank, divided by their sum; equal counts share the mean of theirs."""
    from scipy.stats import rankdata

    first, last = (rankdata(counts, method=method).astype(int).tolist() for method in ("min", "max"))
    falling, total = sorted(counts, reverse=True), sum(counts)
    return [sum(falling[a - 1 : b]) / ((b - a + 1) * total) for a, b in zip(first, last, strict=True)]
