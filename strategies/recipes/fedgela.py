"""FedGELA: a classifier that nobody trains, and logits that follow each client's own classes.

"Federated Learning with Bilateral Curation for Partially Class-Disjoint Data" (NeurIPS 2023, arXiv 2405.18972). The
head of a task of C classes on representations of d entries is frozen to the corners of a simplex, shape [d, C],

    M = sqrt(C/(C-1)) P (Id - 1 1^T / C),    P orthonormal        :mod:`strategies.policies.simplex_classifier`

A client k with n_k examples, n_{k,c} of class c, trains the backbone with cross-entropy on the logits

    phi_{k,c} M_c^T h / T,    phi_{k,c} = C n_{k,c} / n_k         :mod:`clients.policies.simplex_classifier`

and the server averages by examples, ``w[t+1] = sum_k p_k w_k`` with ``p_k = n_k / sum n``. The global model is judged
with M itself.

Differences from the authors' code: the batch norm between backbone and classifier, which is trained there, is the
model's to have (``model.out_norm = "batch"``) and off unless set; T divides the logits and nothing else (their flag
also scales M, and their README's value of 1e-5 saturates the loss); learning rate, momentum, decay and clipping are the
run's (theirs: 0.01, 0.9, 1e-4, 20). Tasks without classes train their heads as ever.
"""

from __future__ import annotations

from typing import Annotated, Any

from fedmtl.components import OptionsOf
from strategies.aggregators import ModelAggregator
from strategies.core.kinds import TaskWeights
from strategies.flower.strategy import FlowerStrategy
from strategies.policies.simplex_classifier import SimplexClassifier, Temperature
from strategies.recipes.papers import method
from strategies.schedulers import Synchronous
from strategies.weightings.options import WeightBase, base_weighting


@method(
    "synchronous",
    "Federated Learning with Bilateral Curation for Partially Class-Disjoint Data",
    arxiv="2405.18972",
)
def fedgela(
    task_weights: TaskWeights | None = None,
    *,
    temperature: Temperature = 0.2,
    weight_base: WeightBase = "data_size",
    **rounds: Annotated[Any, OptionsOf(Synchronous)],
) -> FlowerStrategy:
    """FedGELA: rounds beneath a classifier that is frozen to a simplex and scaled to each client's classes."""
    return FlowerStrategy(
        Synchronous(**rounds),
        ModelAggregator(base_weighting(weight_base)),
        SimplexClassifier(temperature=temperature),
        task_weights,
        name="fedgela",
    )
