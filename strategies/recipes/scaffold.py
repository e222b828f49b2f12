"""SCAFFOLD: control variates take the drift of the clients out of their steps.

"SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (ICML 2020, arXiv 1910.06378). With the server's
variate c and client i's own c_i, all of shape [P] and 0 at the start, from w[t]:

    y <- y - eta (g_i(y) - c_i + c)                               :mod:`clients.policies.control_variates`
    c_i+ = c_i - c + (w[t] - y_i) / (tau_i eta)
    w[t+1] = w[t] + eta_g sum_{i in S} p_i (y_i - w[t]),          p_i = 1/|S|
    c <- c + (1/N) sum_{i in S} (c_i+ - c_i)                      :mod:`strategies.policies.control_variates`

Each round sends 4P bytes more in either direction. c_i is the client's own state; a client whose update were dropped
would have changed it, but c would not follow. So time-outs and over-selection must keep what comes late.

Differences: tau_i is each client's own number of steps (a common third-party code takes the first client's). The
formula of c_i+ presumes plain SGD: with clipping c_i is a mean of clipped gradients, with momentum about 1/(1 - m)
times too long, which is logged.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import GradientAggregator
from strategies.aggregators.gradient import SERVER_RATE
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import ControlVariates
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting


@method("synchronous", "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", arxiv="1910.06378")
def scaffold(
    task_weights: TaskWeights | None = None,
    *,
    server_rate: Annotated[float, SERVER_RATE.by("paper")] = 1.0,
    weight_base: WeightBase = "uniform",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """SCAFFOLD: rounds with control variates."""
    aggregator = GradientAggregator(base_weighting(weight_base), server_rate=server_rate)
    policy = ControlVariates(share="clients")
    return FlowerStrategy(Synchronous(**rounds), aggregator, policy, task_weights, name="scaffold")
