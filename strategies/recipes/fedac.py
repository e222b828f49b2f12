"""FedAC: prospective momentum on the server, and control variates on the clients.

"Efficient Asynchronous Federated Learning with Prospective Momentum Aggregation and Fine-Grained Correction" (AAAI
2024). When K updates have arrived, with vectors of shape [P],

    r_i = max(cos(w - w_start_i, Delta_i), floor),   p_i = r_i / sum_j r_j,   D = sum_i p_i Delta_i
    m <- b1 m + (1 - b1) D,    v <- b2 v + (1 - b2) D^2
    w <- w + eta_g (b1 m + (1 - b1) D) / (sqrt(v) + eps)                    with the new m: one step ahead

and each client, with its variate c_i, the server's c, its steps s_i and its rate eta,

    each step:      y <- y - eta (g_i(y) + c - c_i)
    after the job:  c_i+ = (w_start - w_end) / (s_i eta) - (c - c_i);   the server: c <- c + sum_i p_i (c_i+ - c_i)

(:mod:`clients.policies.control_variates`). Where the model has not moved since a client's start there is no angle,
and r_i is the floor.

Differences: the paper's body was not available; these are the formulas of AFL-Lib, which lets r_i fall to 0, compares
with the model itself at first, and takes the epochs for the steps. FedQS's version never applies momentum nor c, and
normalises while it is still changing the weights. With momentum or clipping on the client, c_i is no longer the mean
gradient.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fedmtl.components import OptionsOf, Param
from strategies.aggregators import GradientAggregator, Optimized
from strategies.aggregators.gradient import SERVER_RATE
from strategies.aggregators.server_optimizers import MOMENT1, MOMENT2, ROOT_OFFSET, Adam
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies import ControlVariates, Plain
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.schedulers.options import BUFFER_SIZE
from strategies.weightings import Agreement
from strategies.weightings.agreement import LeastAgreement

_LIB = "second-hand"


@method(
    "semi-asynchronous",
    "Efficient Asynchronous Federated Learning with Prospective Momentum Aggregation and Fine-Grained Correction",
)
def fedac(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: Annotated[int, BUFFER_SIZE.by(_LIB)] = 5,
    server_rate: Annotated[float, SERVER_RATE.by(_LIB)] = 0.001,
    beta1: Annotated[float, MOMENT1.by(_LIB)] = 0.6,
    beta2: Annotated[float, MOMENT2.by(_LIB)] = 0.9,
    eps: Annotated[float, ROOT_OFFSET.by(_LIB)] = 1e-8,
    floor: LeastAgreement = 0.1,
    correction: Annotated[Literal["on", "off"], Param("correct the clients' steps by control variates")] = "on",
    **buffer: Annotated[Any, OptionsOf(Buffered)],
) -> FlowerStrategy:
    """FedAC: updates that agree with the server's movement count more; momentum looks ahead; variates correct drift."""
    optimizer = Adam(server_rate, beta1, beta2, eps, v0=0.0, look_ahead=True)
    return FlowerStrategy(
        Buffered(buffer_size=buffer_size, **buffer),
        Optimized(GradientAggregator(Agreement(floor=floor)), optimizer),
        ControlVariates(share="weights") if correction == "on" else Plain(),
        task_weights,
        name="fedac",
    )
