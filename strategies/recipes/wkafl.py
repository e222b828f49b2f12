"""WKAFL: weighted K-asynchronous learning that picks the updates which agree.

"Towards Efficient and Stable K-Asynchronous Federated Learning with Unbounded Stale Gradients on Non-IID Data" (arXiv
2203.01214). Clients are always busy; when K updates have arrived, the freshest and most agreeing ones decide, in the
two stages that :class:`strategies.aggregators.wkafl.WKAFLAggregator` spells out, with vectors of shape [P].

Differences: a client's g_i is its update after all its local steps (theirs: one gradient), so the server's rate is 1.
The authors' code clips one entry beyond the end of its list. FedQS's version divides 0 by 0 when no update is kept
(here the first estimate is taken), lacks the server's rate, and compares with a norm that is always 0. The authors
aggregate 20 of 2000 clients; the bound of the norms depends on the model, theirs was not available.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import WKAFLAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.recipes.papers import method
from strategies.schedulers import Buffered
from strategies.schedulers.options import BaselineBufferSize

PARTS = OptionsOf(WKAFLAggregator, Buffered)
"""What this is composed of, whose options are its own, too."""


@method(
    "semi-asynchronous",
    "Towards Efficient and Stable K-Asynchronous Federated Learning with Unbounded Stale Gradients on Non-IID Data",
    arxiv="2203.01214",
)
def wkafl(
    task_weights: TaskWeights | None = None,
    *,
    buffer_size: BaselineBufferSize = 10,
    **options: Annotated[Any, PARTS],
) -> FlowerStrategy:
    """WKAFL: a staleness-weighted estimate of the direction picks and weighs the updates that agree with it."""
    of_aggregator, of_buffer = PARTS.divide(options)
    scheduler = Buffered(buffer_size=buffer_size, **of_buffer)
    return FlowerStrategy(scheduler, WKAFLAggregator(**of_aggregator), task_weights=task_weights, name="wkafl")
