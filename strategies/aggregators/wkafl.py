"""WKAFL's aggregation: a first estimate of the direction chooses and weighs the updates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from fedmtl.components import Param
from fedmtl.parameters import weighted_sum
from fedmtl.protocol import GlobalModel
from fedmtl.restoring import checked_tensor
from strategies.aggregators.gradient import GradientAggregator
from strategies.core.kinds import Aggregator, Step
from strategies.weightings.agreement import cosine
from strategies.weightings.vectors import GivenScores

_CODE = "authors' code"


class WKAFLAggregator(Aggregator):
    """Updates are picked and weighed by their agreement with a staleness-weighted estimate (WKAFL).

    Besides, momentum from the last step, and two bounds. With the last step's direction g_prev (0 at first), over the
    trainable part:

        g_i = clip(Delta_i + momentum g_prev, norm_bound)         to an L2 norm of at most that
        s_i ~ (e/2)^(-tau_i), sum_i s_i = 1;   g_hat = sum_i s_i g_i
        keep i with cos(g_i, g_hat) > cosine_bound
        p_i ~ exp(sharpness cos(g_i, g_hat)) (e/2)^(-tau_i) over those kept, sum_i p_i = 1; none kept: p_i = s_i
        from version `late_from` on:   g_i <- clip(g_i, late_bound ||g_hat||)
        g = sum_i p_i g_i;   w <- w + server_rate / (1 + rate_decay min_i tau_i) g

    A vector that is 0 has no angle and is not kept. Batch-norm statistics are averaged with the p_i.

    Parameters
    ----------
    server_rate, rate_decay, momentum, norm_bound, cosine_bound, sharpness, late_from, late_bound
        As in the formulas.

    Examples
    --------
    The third update goes against the estimate made of all three, and is left out:

    >>> from fedmtl.toy import toy_model, toy_update
    >>> from strategies.aggregators import WKAFLAggregator
    >>> from strategies.core.kinds import Step
    >>> model = toy_model([0.0, 0.0])
    >>> aggregator = WKAFLAggregator(sharpness=0.0)
    >>> aggregator.prepare(model, seed=0)
    >>> deltas = [[1.0, 1.0], [2.0, 1.0], [-1.0, 0.0]]
    >>> aggregator.aggregate(Step.of(model, [toy_update(client, delta) for client, delta in enumerate(deltas)]))
    (tensor([1.5000, 1.0000]), (0.5, 0.5, 0.0))
    """

    no_rule = "it picks, clips and weighs the updates by an estimate of its own"

    def __init__(
        self,
        *,
        server_rate: Annotated[float, Param("the server's step for fresh updates", gt=0)] = 1.0,
        rate_decay: Annotated[float, Param("decay of the step with the least staleness", ge=0, source=_CODE)] = 0.01,
        momentum: Annotated[float, Param("share of the last direction in each update", ge=0, lt=1, source=_CODE)] = 0.1,
        norm_bound: Annotated[float, Param("L2 norm to which updates are clipped", gt=0)] = 10.0,
        cosine_bound: Annotated[
            float, Param("least agreement of an update that counts", ge=-1, lt=1, source=_CODE)
        ] = 0.3,
        sharpness: Annotated[float, Param("factor of the cosine in the exponential", ge=0, source=_CODE)] = 50.0,
        late_from: Annotated[int, Param("version at which the second stage begins", ge=0, source=_CODE)] = 3500,
        late_bound: Annotated[
            float, Param("second stage: norms are at most so many times the estimate's", gt=0, source=_CODE)
        ] = 5.0,
    ) -> None:
        self.server_rate = server_rate
        self.rate_decay = rate_decay
        self.momentum = momentum
        self.norm_bound = norm_bound
        self.cosine_bound = cosine_bound
        self.sharpness = sharpness
        self.late_from = late_from
        self.late_bound = late_bound
        self._g_prev = torch.zeros(0)

    def prepare(self, model: GlobalModel, seed: int) -> None:
        """Start with ``g_prev = 0``."""
        self._g_prev = torch.zeros_like(model.vector[model.layout.trainable])

    def aggregate(self, step: Step) -> tuple[Tensor, tuple[float, ...]]:
        """Add the weighted sum of the clipped updates with momentum, which is kept for the next step."""
        part, w, version = step.model.layout.trainable, step.model.vector, step.model.version
        staleness = [version - update.base_version for update in step.updates]
        g = [clipped(update.delta[part] + self.momentum * self._g_prev, self.norm_bound) for update in step.updates]
        s = discounts(staleness)
        g_hat = weighted_sum(g, s, torch.zeros_like(self._g_prev))
        scores = self.selected([cosine(g_i, g_hat) for g_i in g], s)
        if version >= self.late_from:
            g = [clipped(g_i, self.late_bound * float(torch.linalg.vector_norm(g_hat))) for g_i in g]
        # From here on this is gradient aggregation of the g_i, each head from its owners.
        changed = [
            dataclasses.replace(update, delta=torch.cat([g_i, update.delta[part.stop :]]))
            for update, g_i in zip(step.updates, g, strict=True)
        ]
        vector, weights = GradientAggregator(GivenScores(scores)).aggregate(dataclasses.replace(step, updates=changed))
        self._g_prev = vector[part] - w[part]
        eta = self.server_rate / (1.0 + self.rate_decay * min(staleness))
        vector[part] = torch.add(w[part], self._g_prev, alpha=eta)
        return vector, weights

    def selected(self, cosines: Sequence[float], s: Sequence[float]) -> list[float]:
        """The p_i before they are divided by their sum, from the cosines and the s_i."""
        kept = [c > self.cosine_bound for c in cosines]
        if not any(kept):
            return list(s)
        largest = max(cosines)
        return [
            math.exp(self.sharpness * (c - largest)) * s_i if keep else 0.0
            for c, s_i, keep in zip(cosines, s, kept, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The last step's direction."""
        return {"g_prev": self._g_prev}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self._g_prev = checked_tensor(state["g_prev"])


def discounts(staleness: Sequence[int]) -> list[float]:
    """The s_i, which sum to 1. Only differences count, so that the stalest of many cannot make all of them vanish."""
    freshest = min(staleness)
    raw = [math.pow(math.e / 2, freshest - tau) for tau in staleness]
    total = math.fsum(raw)
    return [value / total for value in raw]


def clipped(vector: Tensor, bound: float) -> Tensor:
    """The vector, shape [P], shortened to an L2 norm of at most `bound`."""
    norm = float(torch.linalg.vector_norm(vector))
    return vector * (bound / norm) if norm > bound else vector
