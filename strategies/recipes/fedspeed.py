"""FedSpeed: clients correct their drift by a dual variable, and descend at perturbed points.

"FedSpeed: Larger Local Interval, Less Communication Round, and Higher Generalization Accuracy" (ICLR 2023, arXiv
2302.10429). Rounds over a set S of the N clients, vectors of shape [P], local steps of size eta:

    g1 = grad(w), e = rho g1 / ||g1||, g2 = grad(w + e)         :mod:`clients.policies.sharpness_aware`
    g  = (1 - mix) g1 + mix g2 + lambda (w - w[t] + h_i)        :mod:`clients.policies.dual_corrected`
    w <- w - eta g                                              each step, from w[t] to w_i
    h_i <- h_i + w_i - w[t]                                     after the job; h_i = 0 at the start
    w[t+1] = (1/|S|) sum_{S} w_i + (1/N) sum_{all} h_i          :mod:`strategies.aggregators.dual`

The dual variable stays on the client; the server adds up the updates and so has the mean at no traffic. A local step
costs two gradients, and counts as two on a device's clock.

Differences from the authors' code: a zero gradient climbs nowhere instead of being divided by its norm; the learning
rate, its decay, weight decay and clipping are the run's (theirs: 0.1, 0.998 a round, 0.001, 10); the drift is clipped
with the gradient, the dual is not. The paper mixes g1 and g2, the code uses g2 alone (mix = 1, the default).
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators.dual import DualAveraged
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.dual_corrected import DualCorrected
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings import Uniform

PARTS = OptionsOf(DualCorrected, Synchronous)
"""What this is composed of, whose options are its own, too."""


@method(
    "synchronous",
    "FedSpeed: Larger Local Interval, Less Communication Round, and Higher Generalization Accuracy",
    arxiv="2302.10429",
)
def fedspeed(
    task_weights: TaskWeights | None = None,
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """FedSpeed: rounds of proximal steps with perturbed gradients and a dual correction."""
    corrected, rounds = PARTS.divide(options)
    return FlowerStrategy(
        Synchronous(**rounds), DualAveraged(Uniform()), DualCorrected(**corrected), task_weights, name="fedspeed"
    )
