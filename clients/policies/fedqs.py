"""The client's half of FedQS: a client types itself, and sets its learning rate, momentum and feedback bit.

"FedQS: Optimizing Gradient and Model Aggregation for Semi-Asynchronous Federated Learning" (arXiv 2510.07664). With
the share f of all aggregated updates that are the client's own, its mean f_bar over clients, the measure s between
the pseudo-global gradient L_g and the client's last update (the larger, the further off), and its mean s_bar:

=====  ====================================  ============  ==============  ============
type   condition                             eta           momentum        feedback bit
=====  ====================================  ============  ==============  ============
FBC    f > f_bar, s > s_bar                  unchanged     0               1
FUC    f > f_bar, s <= s_bar                 ``- a F``     m               0
SUC    f <= f_bar, s <= s_bar                ``+ a F``     m               0
SBC-1  f <= f_bar, s > s_bar, small spread   ``+ a F``     m, which is m0  0
SBC-2  f <= f_bar, s > s_bar, large spread   ``+ a F``     0               1
=====  ====================================  ============  ==============  ============

``F = min(f_bar / f, cap)``, ``G = s / s_bar``, ``m = m0 + min(max(k (1/G - 1), 0), cap)``. The spread is that of the
received model's accuracies on the client's held-out examples, class by class, a small class counting half; a client
without held-out classes has none, and so is SBC-1. eta stays the client's own from job to job, and is brought into
its bounds when it changes.

A client stays untyped, with its own eta, the run's momentum and bit 0, in its first job and until f, f_bar, s and
s_bar are all known and, but for s, not zero.

Down: see :mod:`strategies.policies.fedqs`. Up: the terms ``similarity``, which is s, ``client_type``
(:mod:`fedmtl.client_types`) and ``feedback``, which is 1; each is absent where there is no s, no type or no bit.

Differences from the authors' code, which options of :func:`strategies.recipes.fedqs.fedqs` undo: L_g really is a
difference of models, s is one value over the whole vector of parameters (batch-norm statistics left out), and held-out
examples are never trained on. What is not finite counts as unknown. Their code compares angles; for a cosine the
paper's ratio ``s_bar / s`` has no sense where one is negative, so all measures of :mod:`fedmtl.similarity` are
dissimilarities.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from clients.policies.base import ClassAccuracy, ClientHalf, ClientState, Observed, Plan, Probe
from clients.policies.reference_faults import measured_by_tensors, probe_for
from fedmtl.client_types import TYPE_NUMBERS
from fedmtl.protocol import TrainOrder, Update
from fedmtl.similarity import dissimilarity


class FedQSHalf(ClientHalf):
    """Types the client and adapts its training.

    Whether a client is slow and biased, and so probed, is not known when its order is sent, and so no clock charges the
    probe. With the share v of a client's examples held out (``data.validation_fraction``) it takes about
    ``v / (1 - v) / (3 epochs)`` of the order's work, 5 % in the main job; where orders are of few steps
    (``training.steps``), which are less than an epoch, it may be more than the order itself.

    The client keeps its learning rate, and, from an upload to its next order, that update (and where it forms L_g
    itself, the model it was sent).
    """

    def observe(self, order: TrainOrder, state: ClientState) -> Observed:
        """The client's learning rate, and the measure s if there are an L_g and a last update."""
        observed: dict[str, float | Tensor] = {}
        if "learning_rate" in state:
            observed["learning_rate"] = state["learning_rate"]
        last, received = state.pop("last_update", None), state.pop("received", None)
        global_step = order.vectors.get("global_step")
        if isinstance(received, Tensor):
            global_step = order.base.vector - received
        if isinstance(last, Tensor) and global_step is not None:
            s = measured(order, global_step, last)
            if s is not None:
                observed["similarity"] = s
        return observed

    def plan(self, order: TrainOrder, observed: Observed, probe: Probe) -> Plan:
        """Learning rate and momentum; type, feedback bit and s as terms."""
        terms = {**order.constants, **order.terms}
        eta = float(observed.get("learning_rate", order.settings.learning_rate))
        similarity = observed.get("similarity")
        if similarity is None:
            return Plan(dataclasses.replace(order.settings, learning_rate=eta))
        s = float(similarity)
        client_type = client_type_of(terms, s, probe_for(order, probe))
        momentum = order.settings.momentum
        if client_type:
            eta = adapted_rate(terms, eta, client_type)
            if terms["adapt_momentum"]:
                momentum = adapted_momentum(terms, s, client_type)
        settings = dataclasses.replace(order.settings, learning_rate=eta, momentum=momentum)
        return Plan(settings, _said(client_type, s))

    def extra_bytes_up(self, order: TrainOrder) -> int:
        """The similarity, a float, and the feedback bit, a byte; the type is for the records, and not counted."""
        return 5

    def conclude(self, order: TrainOrder, update: Update, state: ClientState) -> None:
        """Keep the learning rate and the update."""
        state["learning_rate"] = update.learning_rate
        if update.failure is None:
            state["last_update"] = update.delta
            if order.constants["since_last"]:
                state["received"] = order.base.vector


def _said(client_type: str, s: float) -> dict[str, float]:
    terms = {"similarity": s}
    if client_type:
        terms["client_type"] = TYPE_NUMBERS[client_type]
    if client_type in ("FBC", "SBC-2"):
        terms["feedback"] = 1.0
    return terms


def measured(order: TrainOrder, global_step: Tensor, last: Tensor) -> float | None:
    """The measure s of these two, of shape [P] each; None where it is not defined."""
    layout, name = order.base.layout, order.constants["similarity"]
    if name == "ref_tensors":
        return measured_by_tensors(layout, global_step, last)
    return dissimilarity(global_step[layout.trainable], last[layout.trainable], name)


def client_type_of(terms: Mapping[str, float], s: float, probe: Probe) -> str:
    """The client's type, or an empty string where too little is known. Only a slow and biased client is probed."""
    f, f_bar, s_bar = terms["frequency"], terms.get("frequency_mean"), terms.get("similarity_mean")
    if not (f > 0 and f_bar and s_bar):
        return ""
    fast, biased = f > f_bar, s > s_bar
    if fast:
        return "FBC" if biased else "FUC"
    if not biased:
        return "SUC"
    return "SBC-2" if accuracy_spread(probe(), terms["small_class"]) >= terms["spread"] else "SBC-1"


def adapted_rate(terms: Mapping[str, float], eta: float, client_type: str) -> float:
    """The learning rate after this job's change: slow clients raise it, fast and unbiased ones lower it."""
    F = min(terms["frequency_mean"] / terms["frequency"], terms["frequency_cap"])
    change = {"FBC": 0.0, "FUC": -terms["a"] * F}.get(client_type, terms["a"] * F)
    if change == 0.0:
        return eta
    return min(max(eta + change, terms["rate_min"]), terms["rate_max"])


def adapted_momentum(terms: Mapping[str, float], s: float, client_type: str) -> float:
    """The momentum of this job: none for clients whose direction is their own, more the better a client agrees."""
    if client_type in ("FBC", "SBC-2"):
        return 0.0
    # 1/G - 1 as a difference over s, so that a client in full agreement (s = 0) gets the cap.
    excess = (terms["similarity_mean"] - s) / max(s, 1e-12)
    return terms["m0"] + min(max(terms["k"] * excess, 0.0), terms["momentum_cap"])


def accuracy_spread(accuracy: ClassAccuracy, small_class: float) -> float:
    """Largest minus smallest class accuracy in percentage points, 0 without classes; a small class counts half."""
    points = [
        100.0 * correct / examples * (0.5 if examples < small_class else 1.0)
        for correct, examples in zip(accuracy.correct, accuracy.examples, strict=True)
    ]
    return max(points) - min(points) if points else 0.0
